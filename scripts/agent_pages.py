"""Generated parts of the pages on algorithms: tables of settings from the configs, results from the measured runs.

A part stands in its page between ``<!-- made: NAME -->`` and ``<!-- end -->``, and is replaced in place; the words
around it are written by hand. A test holds every page to this.

Command:  python -m scripts.agent_pages
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmarks.exact_tasks import RUNS, TASKS, read_runs, summary
from lm_gym.agents import SurrogateConfig
from lm_gym.agents.algorithms.names import ALGORITHMS
from scripts.metric_glossary import field_descriptions

__all__ = ["FAMILIES", "FOLDER", "REVIEWS", "filled", "page_of", "pages"]

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "agents"
REVIEWS = FOLDER.parent / "pictures" / "every_agent.json"
FAMILIES: dict[str, tuple[str, ...]] = {
    "critic": ("ppo", "vine-ppo", "a2c"),
    "returns": ("reinforce", "reinforce++", "remax", "rloo"),
    "groups": ("grpo", "dr-grpo", "dapo", "gspo", "cispo"),
    "optimum": ("soft-q", "a-star-po", "vimpo"),
    "better": ("dpo", "rejection"),
}
"""Folder of pages -> its algorithms; the picture of all agents has a panel for each."""
TITLES = {
    "critic": "with a critic",
    "returns": "single responses",
    "groups": "groups of responses",
    "optimum": "errors that are 0 at the optimum",
    "better": "the better response",
}
PART = re.compile(r"<!-- made: ([\w-]+) -->\n.*?<!-- end -->", flags=re.DOTALL)


def page_of(name: str) -> Path:
    """The page of an algorithm. Raises: KeyError: it is in no family."""
    folders = {one: folder for folder, names in FAMILIES.items() for one in names}
    return FOLDER / folders[name] / f"{name.replace('+', '_plus').replace('-', '_')}.md"


def pages() -> dict[str, Path]:
    """Every algorithm and its page."""
    return {name: page_of(name) for name in ALGORITHMS}


def filled(text: str, name: str | None) -> str:
    """A page with its generated parts made anew. Args: name: of the algorithm; None for the page on all of them."""

    def made(found: re.Match[str]) -> str:
        return f"<!-- made: {found[1]} -->\n{PARTS[found[1]](name)}<!-- end -->"

    return PART.sub(made, text)


def described(kind: type) -> dict[str, str]:
    """The docstring of each field of a config, inherited ones too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if vars(base).get("__annotations__"):
            found |= field_descriptions(base)
    return found


def settings_table(name: str | None) -> str:
    """Settings that an algorithm adds or defaults otherwise, then the names of those that it shares."""
    kind = SurrogateConfig if name is None else ALGORITHMS[name].config_type
    shared = {} if name is None else {one.name: one.default for one in fields(SurrogateConfig)}
    own = [one for one in fields(kind) if one.name not in shared or one.default != shared[one.name]]
    texts, hints = described(kind), get_type_hints(kind)
    rows = [
        (f"`{one.name}`", f"`{_default(one.default)}`", _markdown(texts[one.name]) + _choices(hints[one.name]))
        for one in own
    ]
    table = _table(("setting", "default", "meaning"), rows)
    rest = [f"`{one.name}`" for one in fields(kind) if one not in own]
    return table + (f"\n[As everywhere](../index.md#shared-settings): {', '.join(rest)}.\n" if rest else "")


def exact_table(name: str | None) -> str:
    """Shares of the gap, scores and KL on the exact tasks, for an algorithm and its variants."""
    lines = read_runs()
    variants = [run for run, (algorithm, _) in RUNS.items() if algorithm == name]
    rows = []
    for run in variants:
        for task in TASKS:
            found = summary([line for line in lines if (line["run"], line["task"]) == (run, task)])
            first = [task] if len(variants) == 1 else [run.removeprefix(f"{name}, "), task]
            rows.append((*first, *_exact_cells(found)))
    head = ["task", "share closed, mean (worst)", "score (the optimum's)", "KL in nats (the optimum's)"]
    seconds = summary([line for line in lines if line["run"] == variants[0]])["seconds"]
    command = f"python -m benchmarks.exact_tasks --runs {name}"
    ending = f"\nThree seeds of each; `{command}`, {seconds:.0f} s a run on one core beside other work.\n"
    return _table(tuple(head if len(variants) == 1 else ["settings", *head]), rows) + ending


def reviews_line(name: str | None) -> str:
    """Where an algorithm ended on the built-in reviews."""
    data = json.loads(REVIEWS.read_text(encoding="utf-8"))
    runs = [run for run in data["runs"] if run["agent"] == name]
    scores, kl = [run["score"] for run in runs], [run["kl"] for run in runs]
    return (
        f"On `lm_gym/Reviews-v0`, after {data['tokens']:,} sampled tokens at beta {data['kl_coef']:g}: true score "
        f"{_short(_mean(scores))} ({_short(min(scores))} to {_short(max(scores))}) at {_mean(kl):.1f} nats, where the "
        f"reference has {_short(data['reference'])}; "
        f"`python examples/comparisons/13_every_agent.py --agents {name}`, {_mean([r['seconds'] for r in runs]):.0f} s "
        f"a run. [All agents in one picture](../index.md).\n"
    )


def overview(_: str | None) -> str:
    """A line for each algorithm: its page, and how it did."""
    lines, data = read_runs(), json.loads(REVIEWS.read_text(encoding="utf-8"))
    rows = []
    for family, names in FAMILIES.items():
        for name in names:
            link = f"[{ALGORITHMS[name].__name__}]({page_of(name).relative_to(FOLDER).as_posix()}), `{name}`"
            runs = [run for run in data["runs"] if run["agent"] == name]
            share, _, kl = _exact_cells(summary([line for line in lines if line["run"] == name]))
            score = f"{_short(_mean([run['score'] for run in runs]))} at {_mean([run['kl'] for run in runs]):.1f}"
            rows.append((link, TITLES[family], share, kl, score))
    head = ("agent", "family", "exact tasks: share closed, mean (worst)", "KL (the optimum's)", "reviews: score at KL")
    return _table(head, rows)


PARTS: dict[str, Callable[[str | None], str]] = {
    "settings": settings_table,
    "exact": exact_table,
    "reviews": reviews_line,
    "overview": overview,
}
"""Name of a part -> what makes it, given the algorithm."""


def _exact_cells(found: dict[str, Any]) -> tuple[str, str, str]:
    share = f"{_short(found['share'], 3)} ({_short(found['worst'], 3)})"
    score = f"{_short(found['score'], 3)} ({_short(found['best_score'], 3)})"
    return share, score, f"{found['kl']:.2f} ({found['best_kl']:.2f})"


def _short(number: float, digits: int = 2) -> str:
    """A number without its leading 0."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{number:.{digits}f}")


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def _default(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else f"{value}"


def _markdown(docstring: str) -> str:
    return re.sub(r":class:`~?([^`]*)`", r"`\1`", docstring).replace("``", "`").replace("|", "\\|")


def _choices(hint: Any) -> str:
    """The choices of a text setting that has some."""
    texts = [one for one in get_args(hint) if isinstance(one, str)] if get_origin(hint) is Literal else []
    named = ", ".join(f'`"{one}"`' for one in texts)
    return f" One of {named}." if texts else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))


def main() -> None:
    """Make the parts of every page anew."""
    for name, path in {None: FOLDER / "index.md", **pages()}.items():
        path.write_text(filled(path.read_text(encoding="utf-8"), name), encoding="utf-8")


if __name__ == "__main__":
    main()
