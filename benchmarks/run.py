"""``make bench``: every benchmark, each side in a process of its own, in turns; prints ratios.

The peers (TRL 1.12.0 for PPO, 1.16.0 for GRPO) need environments of their own, see ``peers/trl_ppo.py`` and
``peers/trl_grpo.py``; without one its part is skipped and said so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
GPT2 = ["--layers", "12", "--width", "768", "--heads", "12", "--vocab", "50257", "--episodes", "8"]
LONG_PROMPTS = ["--prompt-tokens", "256", "--response-tokens", "64"]


class Peer(NamedTuple):
    """What a library is measured against."""

    name: str
    """The peer with its release."""
    python: Path
    """Of its environment."""
    script: str
    """That runs it, which also says how the environment is made."""
    sides: Mapping[str, Sequence[str]]
    """Ours: module and further options by title."""
    workloads: Mapping[str, Sequence[str]]
    """Options of every side by title."""


PEERS = {
    "ppo": Peer(
        "TRL 1.12.0",
        ROOT / ".cache" / "trl-venv" / "bin" / "python",
        "benchmarks/peers/trl_ppo.py",
        {
            "shared trunk": ["benchmarks.ppo_side"],
            "separate critic": ["benchmarks.ppo_side", "--separate-critic"],
        },
        {"4 layers x 256, vocabulary 4,096, 32 episodes": [], "GPT-2 124M, 8 episodes": GPT2},
    ),
    "grpo": Peer(
        "TRL 1.16.0",
        ROOT / ".cache" / "trl-grpo-venv" / "bin" / "python",
        "benchmarks/peers/trl_grpo.py",
        {"lm-gym": ["benchmarks.ppo_side", "--grpo"]},
        {
            "4 layers x 256, 4 prompts of 32 x 8 answers of 48, two steps": [],
            "the same, one step": ["--steps", "1"],
            "4 layers x 256, 4 prompts of 256 x 8 answers of 64, two steps": LONG_PROMPTS,
            "the same, one step of long prompts": [*LONG_PROMPTS, "--steps", "1"],
            "GPT-2 124M, 1 prompt of 256 x 8 answers of 64, two steps": [*GPT2, *LONG_PROMPTS],
        },
    ),
}


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command, by a shell so that its peak memory is its own, and read the JSON object on its last line."""
    script = " ".join(f"'{part}'" for part in command)
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peer_ratios(console: Console, peer: Peer, title: str, options: argparse.Namespace) -> None:
    """Throughput and memory against a peer, in turns."""
    if not peer.python.is_file():
        console.print(f"{title}: skipped, {peer.python.relative_to(ROOT)} is missing (see {peer.script})")
        return
    columns = ("tokens/s", "ratio", "tokens/CPU s", "ratio", "peak MiB", "ratio")
    table = Table("workload", "side", *columns, title=title)
    common = ["--iterations", str(options.iterations), "--threads", str(options.threads)]
    for number, (workload, size) in enumerate(peer.workloads.items()):
        if options.workloads and number not in options.workloads:
            continue
        commands = {peer.name: [str(peer.python), peer.script, *size, *common]}
        commands |= {side: [sys.executable, "-m", *ours, *size, *common] for side, ours in peer.sides.items()}
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
        for _ in range(options.repeats):
            for side, command in commands.items():
                runs[side].append(last_json(command))
        for side, found in runs.items():
            cells = []
            for key, unit in (("tokens_per_second", 1), ("tokens_per_cpu_second", 1), ("peak_rss_bytes", 2**20)):
                pairs = zip(found, runs[peer.name], strict=True)
                ratio = statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)
                cells += [f"{statistics.median(run[key] for run in found) / unit:.0f}", f"{ratio:.2f}"]
            table.add_row(workload, side, *cells)
    console.print(table)


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=[*PEERS, "step", "length", "score", "prompts"])
    parser.add_argument(
        "--workloads", type=int, nargs="*", help="numbers of a peer's workloads, from 0; all by default"
    )
    options = parser.parse_args()
    console = Console(width=120)
    modules = {
        "step": "step_rate",
        "length": "rollout_length",
        "score": "score_rate",
        "prompts": "shared_prompts",
    }
    for name, module in modules.items():
        if options.only in (None, name):
            found = last_json([sys.executable, "-m", f"benchmarks.{module}", "--threads", str(options.threads)])
            title = found.pop("benchmark")
            console.print(f"[bold]{title}[/bold]: " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()))
    for name, peer in PEERS.items():
        if options.only in (None, name):
            peer_ratios(console, peer, f"{name.upper()} against {peer.name}", options)


if __name__ == "__main__":
    main()
