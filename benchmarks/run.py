"""``make bench``: every benchmark, each side in a process of its own, in turns; prints ratios.

The peer (TRL 1.12.0) needs its own environment, see ``peer_trl_ppo.py``; without it that part is skipped and said so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".cache" / "trl-venv" / "bin" / "python"
SIZES = {
    "4 layers x 256, vocabulary 4,096, 32 episodes": [],
    "GPT-2 124M, 8 episodes": [
        *("--layers", "12", "--width", "768", "--heads", "12"),
        *("--vocab", "50257", "--episodes", "8"),
    ],
}


def last_json(command: list[str]) -> dict[str, Any]:
    """Run a command, by a shell so that its peak memory is its own, and read the JSON object on its last line."""
    script = " ".join(f"'{part}'" for part in command)
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def ppo_ratios(console: Console, repeats: int, iterations: int, threads: int) -> None:
    """Throughput and memory of PPO against the peer, in turns."""
    if not PEER_PYTHON.is_file():
        console.print(f"PPO against TRL: skipped, {PEER_PYTHON.relative_to(ROOT)} is missing (see peer_trl_ppo.py)")
        return
    table = Table("workload", "side", "tokens/s", "ratio", "peak MiB", "ratio", title="PPO against TRL 1.12.0")
    common = ["--iterations", str(iterations), "--threads", str(threads)]
    for title, size in SIZES.items():
        commands = {
            "TRL 1.12.0": [str(PEER_PYTHON), "benchmarks/peer_trl_ppo.py", *size, *common],
            "shared trunk": [sys.executable, "-m", "benchmarks.ppo_side", *size, *common],
            "separate critic": [sys.executable, "-m", "benchmarks.ppo_side", *size, *common, "--separate-critic"],
        }
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
        for _ in range(repeats):
            for side, command in commands.items():
                runs[side].append(last_json(command))
        for side, found in runs.items():
            speed = statistics.median(run["tokens_per_second"] for run in found)
            memory = statistics.median(run["peak_rss_bytes"] for run in found) / 2**20
            pairs = list(zip(found, runs["TRL 1.12.0"], strict=True))
            ratio = statistics.median(ours["tokens_per_second"] / peer["tokens_per_second"] for ours, peer in pairs)
            share = statistics.median(ours["peak_rss_bytes"] / peer["peak_rss_bytes"] for ours, peer in pairs)
            table.add_row(title, side, f"{speed:.0f}", f"{ratio:.2f}", f"{memory:.0f}", f"{share:.2f}")
    console.print(table)


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ppo", "step", "length", "score"])
    options = parser.parse_args()
    console = Console(width=120)
    for name, module in (("step", "step_rate"), ("length", "rollout_length"), ("score", "score_rate")):
        if options.only in (None, name):
            found = last_json([sys.executable, "-m", f"benchmarks.{module}", "--threads", str(options.threads)])
            title = found.pop("benchmark")
            console.print(f"[bold]{title}[/bold]: " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()))
    if options.only in (None, "ppo"):
        ppo_ratios(console, options.repeats, options.iterations, options.threads)


if __name__ == "__main__":
    main()
