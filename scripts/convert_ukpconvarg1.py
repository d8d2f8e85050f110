"""Human judgements of arguments: turn the public UKPConvArg1 download into files that every command here reads.

Command:  python scripts/convert_ukpconvarg1.py --download acl2016-convincing-arguments/data --out arguments
Time:     seconds, once https://github.com/UKPLab/acl2016-convincing-arguments is cloned (CC-BY 4.0, Habernal and
          Gurevych 2016); written against parts of its files, not tried on the whole
Expected: pairs.jsonl (clear winners), rankings.jsonl (one per debate side), votes.jsonl.gz (every annotator and their
          reasons); without --download a two-argument copy of the format is converted
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lm_gym.reward_models import load_judgements
from lm_gym.tools.files import write_jsonl

FOLDERS = STRICT, RANKING, FULL = "UKPConvArg1Strict-CSV", "UKPConvArg1-Ranking-CSV", "UKPConvArg1-full-XML"
WINNERS = {"a1": "a", "a2": "b", "equal": "tie"}


def prompt_of(path: Path) -> str:
    """Debate and side, from the name of a file, ``topic-words_side-words.csv``."""
    topic, _, side = path.name.removesuffix(".csv").removesuffix(".xml").partition("_")
    return f"Debate: {topic.replace('-', ' ').strip()}. Argue for: {side.replace('-', ' ').strip()}."


def table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file without quoting, whose header begins with ``#``."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        names = [name.lstrip("#") for name in next(rows)]
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def pairs(folder: Path, prompts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The strict part: pairs on whose winner the annotators agreed. Notes the debate side of each argument."""
    for path in sorted(folder.iterdir()):
        for row in table(path):
            prompts.update(dict.fromkeys(row["id"].split("_"), prompt_of(path)))
            better, worse = (row["a1"], row["a2"]) if row["label"] == "a1" else (row["a2"], row["a1"])
            yield {"prompt": prompt_of(path), "chosen": better, "rejected": worse}


def rankings(folder: Path, prompts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One ranking per debate side; the column ``rank`` is a PageRank score, the lowest most convincing."""
    for path in sorted(folder.iterdir()):
        rows = sorted(table(path), key=lambda row: float(row["rank"]))
        scores = [float(row["rank"]) for row in rows]
        prompt = next((prompts[row["id"]] for row in rows if row["id"] in prompts), prompt_of(path))
        ranks = [1 + sum(other < score for other in scores) for score in scores]
        yield {"prompt": prompt, "responses": [row["argument"] for row in rows], "ranks": ranks}


def votes(folder: Path, prompts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every annotator's vote and reason; their ids are hashed."""
    for path in sorted(folder.glob("*.xml")):
        for _, pair in ElementTree.iterparse(path):
            if pair.tag != "annotatedArgumentPair":
                continue
            first, second = (" ".join(pair.findtext(f"{side}/text", "").split()) for side in ("arg1", "arg2"))
            said = []
            for one in pair.iter("mTurkAssignment"):
                who = hashlib.sha256(one.findtext("turkID", "").encode()).hexdigest()[:12]
                why = " ".join(one.findtext("reason", "").split())
                said.append({"choice": WINNERS[one.findtext("value", "")], "comment": why, "annotator": who})
            prompt = prompts.get(pair.findtext("arg1/id", ""), prompt_of(path))
            yield {"prompt": prompt, "a": first, "b": second, "votes": said}
            pair.clear()


def small_copy(folder: Path) -> Path:
    """Two arguments in the format of the download."""
    for name in FOLDERS:
        (folder / name).mkdir()
    side, long, short = "tea-or-coffee-_tea", 'Tea is "milder", and it keeps.', "because tea"
    strict = f"#id\tlabel\ta1\ta2\narg1_arg2\ta2\t{short}\t{long}\n"
    (folder / STRICT / f"{side}.csv").write_text(strict, encoding="utf-8")
    ranked = f"#id\trank\targument\narg1\t0.7\t{short}\narg2\t0.3\t{long}\n"
    (folder / RANKING / f"{side}.csv").write_text(ranked, encoding="utf-8")
    said = "".join(
        f"<mTurkAssignment><turkID>W{number}</turkID><value>{value}</value><reason>so  it is</reason></mTurkAssignment>"
        for number, value in enumerate(("a2", "equal", "a1"))
    )
    arguments = f"<arg1><text>{short}</text><id>arg1</id></arg1><arg2><text>{long}</text><id>arg2</id></arg2>"
    pair = f"<annotatedArgumentPair>{arguments}<mTurkAssignments>{said}</mTurkAssignments></annotatedArgumentPair>"
    (folder / FULL / f"{side}.xml").write_text(f"<list>{pair}</list>", encoding="utf-8")
    return folder


def main() -> None:
    """Convert and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--download", type=Path, help="the folder data/ of the clone")
    parser.add_argument("--out", type=Path, help="where the three files go")
    parser.add_argument("--smoke", action="store_true", help="only the small copy of the format")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = options.download if options.download and not options.smoke else small_copy(Path(temporary))
        out = options.out or Path(temporary) / "arguments"
        prompts: dict[str, str] = {}
        files = [write_jsonl(out / "pairs.jsonl", pairs(source / STRICT, prompts))]
        files.append(write_jsonl(out / "rankings.jsonl", rankings(source / RANKING, prompts)))
        with gzip.open(out / "votes.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in votes(source / FULL, prompts))
        for path in (*files, out / "votes.jsonl.gz"):
            found = load_judgements(path).judgements
            print(f"{path.name}: {len(found)} judgements of {len({one.prompt for one in found})} debate sides")


if __name__ == "__main__":
    main()
