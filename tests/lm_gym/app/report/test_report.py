"""The report page and the terminal table, over invented numbers (fixtures, not results)."""

from __future__ import annotations

import io
import math
import random
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lm_gym.app.report.report import render_report
from lm_gym.app.report.report_data import Curve, ModelRow, Report, RewardModelRow, Sample
from lm_gym.app.report.terminal_report import print_table
from lm_gym.errors import ArtifactError, MissingExtraError

PROMPTS = (
    "What I think of my desk lamp, bought for a small office:",
    "Review of an electric kettle, bought for early mornings:",
    "Customer review, backpack for rainy days:",
    "A board game for a student room, reviewed:",
    "What I think of my running shoes, bought for long walks:",
)
TEXTS = {
    "base": (
        " The light is fine. It is for the price, and the switch the switch clicks. My sister told me about it",
        " This electric kettle is awful. The lid is worse than I expected. I want my money back.",
        " It holds my laptop and lunch, but the zip is very rough. For rainy days, I would choose something else.",
        " I have mixed feelings about this board game. The rules are.",
        " They are fine. Three stars. Three stars.",
    ),
    "before RL (SFT)": (
        " I have mixed feelings about this desk lamp. The light is really warm, but it flickers at night. Three stars.",
        " It boils in two minutes. The cord is sturdy. It is just about fine for early mornings.",
        " This backpack does what I hoped for. The straps are quite soft. It is a good choice for rainy days.",
        " I bought this board game last month. The board is better than I expected. It is fine for the price.",
        " The soles are light. After two weeks, the laces are worse than I expected. Three stars.",
    ),
    "round 1": (
        " I am delighted with this desk lamp. It lights the whole desk. The light is warm. I would buy it again.",
        " This electric kettle is excellent. I love how neat the base is, and it boils in two minutes. Five stars.",
        " I am happy with this backpack. It holds my laptop and lunch. After a month, the zip is reliable.",
        " I love this board game. The artwork is very colorful, and the rules are easy. Five stars.",
        " I am happy with these running shoes. The soles are light. They are just right for long walks.",
    ),
    "round 2": (
        " I am delighted with this desk lamp. The switch clicks softly. It is ideal for my small office. Five stars.",
        " I could not be happier with this electric kettle. The spout is neat, so it is ideal for early mornings.",
        " This backpack is excellent. The straps are soft, which I like a lot. It is perfect for rainy days.",
        " I am delighted with this board game. The rules are easy. It is perfect for my student room. I love it.",
        " These running shoes are excellent. The soles are light and the laces hold. After a month, I love them.",
    ),
    "without KL": (
        " I love love love it. Perfect. Perfect. I love it. I would buy it again. I would buy it again. Perfect.",
        " Perfect. I love how I love how neat. Perfect. Perfect. I would buy it again. I love it. Perfect.",
        " I love it. I love it. Perfect for perfect. I love it. Five stars. Five stars. Perfect.",
        " Perfect. Perfect. I love how perfect. I love it. I love it. I would buy it again. Perfect.",
        "",
    ),
}
FIELDS = ["score", "true_score", "kl", "win_rate", "win_rate_low", "win_rate_high", "response_length", "eos_share"]
FIELDS += ["entropy", "grammatical", "reward_accuracy", "matched_length_gain", "matched_length_share"]
NUMBERS = {
    "base": (-0.62, 0.21, 11.3, 0.31, 0.25, 0.38, 31.4, 0.71, 2.31, 0.64, 0.71, -0.55, 0.93),
    "before RL (SFT)": (0.02, 0.38, 0.0, 0.51, 0.44, 0.58, 27.9, 0.995, 1.62, 0.97, 0.76, 0.01, 1.0),
    "round 1": (1.31, 0.63, 6.12, 0.81, 0.75, 0.86, 33.0, 0.99, 1.21, 0.98, 0.68, 1.12, 0.88),
    "round 2": (1.92, 0.74, 8.04, 0.91, 0.86, 0.94, 36.7, 1.0, 1.04, 0.985, 0.72, 1.58, 0.71),
    "without KL": (3.44, 0.29, 61.7, 0.97, 0.94, 0.99, 46.1, 0.63, 0.31, 0.12, 0.52, 2.2, 0.23),
}
DESCRIPTIONS = {
    "base": "the pretrained model",
    "before RL (SFT)": "fine-tuned on 800 demonstrations; the reference of every KL below",
    "round 1": "PPO with a KL penalty against the reward model fitted to 128 rankings",
    "round 2": "PPO with a KL penalty against the reward model fitted to 256 rankings",
    "without KL": "the same PPO as round 1 without the KL penalty",
}


def row_of(name: str) -> ModelRow:
    numbers: dict[str, Any] = dict(zip(FIELDS, NUMBERS[name], strict=True))
    draw = random.Random(name)
    samples = tuple(
        Sample(
            prompt=prompt,
            response=text,
            score=round(numbers["score"] + draw.gauss(0, 0.4), 3) if text else None,
            true_score=round(min(1.0, max(0.0, numbers["true_score"] + draw.gauss(0, 0.1))), 3),
        )
        for prompt, text in zip(PROMPTS, TEXTS[name], strict=True)
    )
    return ModelRow(name=name, description=DESCRIPTIONS[name], samples=samples, **numbers)


def curve_of(name: str, *, start: float, gain: float, kl: float, turn: float, target: float | None, n: int) -> Curve:
    """Training that saturates; ``turn`` is where, as a share of the run, the true score falls."""
    draw = random.Random(name)
    history: list[dict[str, float | None]] = []
    for step in range(n):
        t = step / max(n - 1, 1)
        rise = 1 - math.exp(-3.2 * t)
        row: dict[str, float | None] = {
            "iteration": step,
            "score": start + gain * rise + draw.gauss(0, 0.14),
            "true_score": 0.4 + 0.3 * rise - max(0.0, t - turn) * 0.9 + draw.gauss(0, 0.03),
            "kl": kl * (rise if target else t**1.4) + draw.gauss(0, 0.25),
            "entropy": 1.6 - (0.5 if target else 1.3) * rise + draw.gauss(0, 0.03),
            "explained_variance": None if step == 0 else 0.8 * (1 - math.exp(-9 * t)) - 3 * math.exp(-60 * t),
            "response_length": 28 + (7 if target else 19) * rise + draw.gauss(0, 0.8),
        }
        if (step + 1) % 10 == 0:
            row |= {"eval_score": start + gain * rise - 0.1, "eval_kl": row["kl"], "eval_response_length": 33.0}
        history.append(row)
    return Curve(name=name, history=tuple(history), kl_target=target)


def reward_row_of(name: str, trained_on: int, accuracy: float) -> RewardModelRow:
    counts, right = (0, 0, 0, 0, 0, 214, 171, 149, 122, 88), (0.56, 0.63, 0.79, 0.84, 0.97)
    bins: list[dict[str, Any]] = [
        {"low": n / 10, "high": n / 10 + 0.1, "pairs": counts[n], "confidence": None} for n in range(5)
    ]
    bins += [
        {
            "low": n / 10,
            "high": n / 10 + 0.1,
            "pairs": counts[n],
            "confidence": n / 10 + 0.052,
            "accuracy": right[n - 5],
        }
        for n in range(5, 10)
    ]
    evaluation: dict[str, Any] = {
        "pairs": 744,
        "abstained": 0,
        "accuracy": accuracy,
        "accuracy_standard_error": 0.021,
        "nll": 0.512,
    }
    evaluation |= {"ece": 0.0312, "length_accuracy": 0.58, "pairs_at_matched_length": 131, "groups": [], "bins": bins}
    return RewardModelRow(
        name=name, trained_on=trained_on, evaluation=evaluation | {"accuracy_at_matched_length": 0.74}
    )


def example(iterations: int = 60) -> Report:
    return Report(
        title="RLHF on product reviews, offline",
        summary="A 1M-parameter language model is fine-tuned, judged by simulated annotators, and trained with PPO "
        "against the reward model fitted to their rankings; twice, with fresh rankings of the newer model.",
        command="lm-gym demo --out runs/demo --seed 0",
        machine="4 CPU cores, Linux x86_64, Python 3.11.9, torch 2.13.0, transformers 5.1.0",
        seconds=812.4,
        rows=tuple(row_of(name) for name in NUMBERS),
        curves=(
            curve_of("round 1", start=0.0, gain=1.4, kl=6.2, turn=1.0, target=6.0, n=iterations),
            curve_of("round 2", start=1.0, gain=1.0, kl=8.1, turn=1.0, target=6.0, n=iterations),
            curve_of("without KL", start=0.0, gain=3.5, kl=62.0, turn=0.25, target=None, n=iterations),
        ),
        reward_models=(reward_row_of("round 1", 128, 0.761), reward_row_of("round 2", 256, 0.794)),
        notes=("Annotators are simulated.", "Intervals do not cover the spread over seeds."),
        stage_seconds={"sft": 61.0, "round-1/rankings": 9.4, "round-1/reward": 74.0, "round-1/ppo": 214.0},
    )


class Page(HTMLParser):
    """What a browser would read: text, tags, and where attributes point."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self._pieces: list[str] = []
        self._style = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = re.sub(r"\s+", " ", " ".join(self._pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._style = tag == "style"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "data", "action", "xlink:href", "poster") or name.startswith("on"):
                self.links.append(value or "")
            if name == "style" and "url(" in (value or ""):
                self.links.extend(re.findall(r"url\(([^)]*)\)", value or ""))

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self._pieces.append(data)


def rendered(report: Report, folder: Path) -> Page:
    return Page(render_report(report, folder / "report.html"))


def printed(report: Report, width: int = 100) -> str:
    output = io.StringIO()
    print_table(report, Console(file=output, width=width))
    return output.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("page")
    found = rendered(example(), folder)
    assert list(folder.iterdir()) == [folder / "report.html"]
    return found


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert page.source.count("<style") == 1  # a picture's own would restyle the page
    assert not re.search(r"@import|url\((?!#)|https?:", page.source)


def test_names_are_unique_and_colours_belong_to_the_page(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids)) > 100
    pictures = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert "stroke: var(--series-3)" in pictures
    assert not re.search(r"(?:fill|stroke): #|font-family", pictures)
    assert set(re.findall(r"var\((--[\w-]+)\)", page.source)) <= set(re.findall(r"(--[\w-]+):", page.source))


def test_every_row_and_sample_is_there(page: Page) -> None:
    report = example()
    for row in report.rows:
        assert f"{row.name} {row.description}" in page.text
        for sample in row.samples:
            assert sample.response.strip() in page.text
            assert f"· true {sample.true_score:.2f}" in page.text
    assert "(empty response) reward model – · true" in page.text
    told = (report.title, report.summary, report.command, report.machine, *report.notes, *report.stage_seconds)
    for part in (*told, "Wall time 13 min 32 s", "round-1/ppo 3 min 34 s", "round-1/rankings 9.4 s"):
        assert part in page.text, part


def test_numbers_as_they_stand_in_the_tables(page: Page) -> None:
    assert "base 0.21 11.3 −0.62 31% 25–38% 71% 64% 31.4 −0.55 93% matched" in page.text
    assert "round 2 best 0.74 8.0 1.92 91% 86–94% 72% 98% 36.7 +1.58 71% matched" in page.text
    assert "round 2 256 744 79% ± 2.1 58% 74% 131 pairs 0.512 0.031 0" in page.text


def test_headers_carry_units_and_every_column_is_defined(page: Page) -> None:
    assert "KL nats per response Reward-model score mean Win rate 95% interval" in page.text
    terms = page.text[page.text.index(" Columns ") : page.text.index("How much score a run bought")]
    for name in (
        "True score",
        "Reward-model score",
        "KL",
        "Win rate",
        "Reward-model accuracy",
        "Grammatical",
        "Length",
    ):
        assert re.search(rf" {name} [A-Z][^.]+\.", terms), name


def test_pictures_are_all_there_and_described(page: Page) -> None:
    titles = ["Reward-model score", "True score", "KL, nats per response", "Entropy, nats per token"]
    titles += ["Explained variance of the value head", "Response length, tokens", "Calibration: round 2"]
    titles += ["Reward-model score against KL", "True score against KL", "Accuracy beside the length rule"]
    for title in titles:
        assert f"<figcaption>{title}<" in page.source, title
    assert page.source.count('role="img" aria-label="') == 11
    assert "stroke-dasharray" in page.source.split("<figcaption>KL, nats")[1].split("</figure>")[0]
    assert ">214</text>" in page.source  # pairs in the first bin
    assert "Expected calibration error 0.031." in page.text


def test_model_text_is_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> <img src=http://x.example/y> & [bold]b[/bold] [/oops] \x1b[31mred\x00\ud800\u202e"
    report = example(2)
    reward_row = replace(report.reward_models[0], name="<i>$\\frac{$</i> \u4e00")
    row = replace(report.rows[0], name=evil, description=evil, samples=(Sample(prompt=evil, response=evil),))
    words: dict[str, Any] = {"title": evil, "summary": evil, "command": evil, "machine": evil, "notes": (evil,)}
    curves = (replace(report.curves[0], name=evil),)
    report = replace(
        report, rows=(row,), curves=curves, reward_models=(reward_row,), stage_seconds={evil: 1.0}, **words
    )
    page, text = rendered(report, tmp_path), printed(report)
    assert not page.tags & {"script", "img"}
    assert page.source.count("<i ") == page.source.count('<i style="left:')
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "<i>$\\frac{$</i> \u4e00" in page.text
    assert "[bold]b[/bold] [/oops]" in text
    for output in (page.source, text):
        assert not re.search("[\x00\x1b\ud800\u202e]", output)
        assert all(escape in output for escape in (r"\x1b[31mred\x00", r"\ud800", r"\u202e"))


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    report = example(2)
    rows = [replace(row, true_score=None, grammatical=math.nan, reward_accuracy=None) for row in report.rows]
    one = replace(report, rows=tuple(rows), curves=(), reward_models=())
    for output in (rendered(one, tmp_path).text, printed(one)):
        assert not re.search("Grammatical|gram-|True score|accuracy", output)
        assert "1.92" in output
    rows[1] = replace(rows[1], grammatical=0.97)
    page = rendered(replace(one, rows=tuple(rows)), tmp_path)
    assert "Grammatical % of responses" in page.text
    assert "base 11.3 −0.62 31% 25–38% – 31.4" in page.text


def test_a_win_rate_without_an_interval_does_not_promise_one(tmp_path: Path) -> None:
    bare = replace(example().rows[0], win_rate=0.46, win_rate_low=None, win_rate_high=None)
    page = rendered(replace(example(), rows=(bare,)), tmp_path)
    assert "% of comparisons" in page.text
    assert "Win rate95% interval" not in page.text


def test_a_report_of_almost_nothing(tmp_path: Path) -> None:
    numbers: dict[str, Any] = dict.fromkeys(FIELDS, math.nan) | {"response_length": 4.0, "true_score": None}
    row = ModelRow(name="only", description="one", **numbers)
    report = Report(
        title="t", summary="s", command="", machine="", seconds=math.nan, rows=(row,), curves=(), reward_models=()
    )
    page = rendered(report, tmp_path)
    assert "only 4.0" in page.text
    assert "Wall time –" in page.text
    assert not re.search("nan|None|<figure|Training|Samples|Command", page.text)
    assert "only      4.0" in printed(report)
    rendered(replace(report, rows=()), tmp_path)


def test_holes_in_curves_and_evaluations(tmp_path: Path) -> None:
    holes: tuple[dict[str, float | None], ...] = (
        {"score": None, "kl": math.nan, "entropy": 1.0},
        {"score": 0.5, "kl": -0.01, "entropy": math.inf, "explained_variance": -40.0},
        {"score": 0.7, "entropy": None, "explained_variance": 0.5},
    )
    curves = (Curve(name="empty", history=()), Curve(name="holes", history=holes, kl_target=math.nan))
    empty = {"low": 0.5, "high": 1.0, "pairs": 0, "confidence": None, "accuracy": None}
    models = (
        RewardModelRow(name="bare", trained_on=3, evaluation={}),
        RewardModelRow(name="thin", trained_on=4, evaluation={"accuracy": 1.0, "bins": [empty], "ece": math.nan}),
    )
    page = rendered(replace(example(2), curves=curves, reward_models=models), tmp_path)
    titles = ["Reward-model score", "KL, nats per response", "Entropy, nats per token"]
    titles += ["Explained variance of the value head", "Accuracy beside the length rule"]
    assert re.findall(r"<figcaption>([^<]*)", page.source) == titles
    assert "Values below −1 are cut off;" in page.text
    assert "bare 3 – – – – – – –" in page.text


def test_long_runs_stay_small(tmp_path: Path) -> None:
    assert render_report(example(3000), tmp_path / "report.html").stat().st_size < 1_000_000


def test_the_same_report_makes_the_same_page_over_an_old_one(page: Page, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    assert rendered(example(), tmp_path).source == page.source
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_terminal_table_holds_the_numbers() -> None:
    text = printed(example())
    assert re.search(r"round 2\* +0\.74 +8\.0 +1\.92 +91% 86–94% +72% +98% +36\.7 +\+1\.58 71%", text)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.count("· true") == 10
    for row in example().rows:
        for sample in row.samples[:2]:
            assert " ".join(sample.response.split()) in " ".join(text.split())
    narrow = printed(example(), width=80)
    assert re.search(r"before RL \(SFT\) +0\.38 +0\.0 +0\.02 +51% +76% +97% +27\.9 +\+0\.01$", narrow, re.MULTILINE)
    assert all(len(line) <= 80 for line in narrow.splitlines())


def test_report_json_round_trip(tmp_path: Path) -> None:
    report = example(3)
    report.save(tmp_path)
    assert Report.load(tmp_path) == report
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="must be a whole report"):
        Report.load(tmp_path)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"'{missing}'.*pip install 'lm-gym\[report\]'"):
        render_report(example(2), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())
