"""Each kind of question in a real browser, by mouse and by keyboard: the store holds what was meant."""

from __future__ import annotations

from typing import Any

import pytest

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import ask_questions, set_guideline


def ask(served: Any, kind: str, count: int = 1, responses: int = 2) -> None:
    questions = [
        Question.of(f"prompt {number}", [f"text {number}.{place}" for place in range(responses)])
        for number in range(count)
    ]
    ask_questions(served.store, questions, kind=kind)


CHOICES = {"a": ("A is better", "1"), "b": ("B is better", "2"), "tie": ("Tie", "0"), "both_bad": ("Both bad", "9")}


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_choice(served: Any, person: Any, by: str) -> None:
    ask(served, "choice", count=4)
    tab = person()
    wanted, before = [], None
    for winner, (label, key) in CHOICES.items():
        before = tab.ready(before)
        side = {"a": 0, "b": 1}.get(winner)
        wanted.append(winner if side is None else tab.texts[side])
        tab.click(label) if by == "mouse" else tab.press(key)
    tab.resting()
    said = [(one.verdict.winner, one.texts) for one in served.labels()]
    assert [texts["ab".index(winner)] if winner in "ab" else winner for winner, texts in said] == wanted


def test_comment_and_overall_rating_beside_a_choice(served: Any, person: Any) -> None:
    ask(served, "choice", count=2)
    tab = person()
    first = tab.ready()
    tab.page.get_by_label("Comment").fill("line one\nline two")
    tab.page.get_by_label("4, good").check(force=True)
    tab.click("A is better")
    tab.ready(first)
    assert tab.page.get_by_label("Comment").input_value() == ""
    tab.press("c")
    tab.page.keyboard.type("123 us")  # none of these keys acts while one writes
    tab.press("Escape", "r", "2", "Escape", "2")
    tab.resting()
    assert [(one.comment, one.overall_rating) for one in served.labels()] == [
        ("line one\nline two", 4),
        ("123 us", 2),
    ]


def places(tab: Any) -> list[str]:
    return tab.page.locator("#ranking-list .chip .name").all_text_contents()


def chip(tab: Any, name: str) -> Any:
    return tab.page.locator("#ranking-list .chip", has_text=name)


def drag(tab: Any, name: str, onto: str) -> None:
    start, end = chip(tab, name).locator(".grip").bounding_box(), chip(tab, onto).bounding_box()
    tab.page.mouse.move(start["x"] + 4, start["y"] + 8)
    tab.page.mouse.down()
    tab.page.mouse.move(start["x"] + 4, end["y"] + 20, steps=4)
    tab.page.mouse.move(start["x"] + 4, end["y"] + 3, steps=4)
    tab.page.mouse.up()


@pytest.mark.parametrize("by", ["digits", "cards", "arrows", "dragging"])
def test_ranking(served: Any, person: Any, by: str) -> None:
    """Third, first, second: whichever way it is put."""
    ask(served, "ranks", responses=3)
    tab = person(viewport={"width": 1280, "height": 1100})
    tab.ready()
    texts = tab.texts
    if by == "digits":
        tab.press("2", "3", "Enter")
    elif by == "cards":
        tab.page.get_by_role("button", name="Answer 2: rank next").click()
        tab.page.get_by_role("button", name="Answer 3: rank next").click()
        tab.click("Save the ranking")
    elif by == "arrows":
        tab.press("1", "2")
        tab.page.get_by_role("button", name="Answer 2 one place up").focus()
        tab.press("Space")
        tab.page.get_by_role("button", name="Answer 3 one place up").focus()
        tab.press("Space")
        assert places(tab) == ["Answer 2", "Answer 3", "Answer 1"]
        tab.press("Control+Enter")
    else:
        drag(tab, "Answer 2", "Answer 1")
        drag(tab, "Answer 3", "Answer 1")
        assert places(tab) == ["Answer 2", "Answer 3", "Answer 1"]
        tab.click("Save the ranking")
    tab.resting()
    (said,) = served.labels()
    assert dict(zip(said.texts, said.verdict.ranks, strict=True)) == dict(zip(texts, (3, 1, 2), strict=True))


def test_ties_in_a_ranking(served: Any, person: Any) -> None:
    ask(served, "ranks", responses=4)
    tab = person()
    tab.ready()
    texts = tab.texts
    tab.press("4", "1", "=", "2", "Enter")
    tab.resting()
    (said,) = served.labels()
    assert dict(zip(said.texts, said.verdict.ranks, strict=True)) == dict(zip(texts, (1, 3, 4, 1), strict=True))


def test_the_first_alone_is_the_best_of_k(served: Any, person: Any) -> None:
    ask(served, "ranks", count=2, responses=4)
    tab = person()
    first = tab.ready()
    best = [tab.texts[2]]
    tab.press("3")
    tab.click("Save: Answer 3 is the best")
    tab.ready(first)
    best.append(tab.texts[0])
    tab.press("2", "2", "1", "Enter")
    tab.resting()
    assert [one.texts[one.verdict.best] for one in served.labels()] == best


def test_half_a_ranking_is_not_saved(served: Any, person: Any) -> None:
    ask(served, "ranks", responses=4)
    tab = person()
    tab.ready()
    tab.press("3", "1", "Enter")
    tab.told("Give every answer a place")
    assert tab.page.locator("#save").is_disabled()
    assert served.labels() == []


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_best_of_k(served: Any, person: Any, by: str) -> None:
    ask(served, "best_of", responses=3)
    tab = person()
    tab.ready()
    best = tab.texts[1]
    tab.page.locator("#verdicts").get_by_role("button", name="Answer 2").click() if by == "mouse" else tab.press("2")
    tab.resting()
    (said,) = served.labels()
    assert said.texts[said.verdict.best] == best


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_thumbs(served: Any, person: Any, by: str) -> None:
    ask(served, "thumb", count=2, responses=1)
    tab = person()
    first = tab.ready()
    tab.click("Good") if by == "mouse" else tab.press("1")
    tab.ready(first)
    tab.click("Bad") if by == "mouse" else tab.press("0")
    tab.resting()
    assert [one.verdict.up for one in served.labels()] == [True, False]


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_rating(served: Any, person: Any, by: str) -> None:
    ask(served, "rating", count=2, responses=1)
    tab = person()
    first = tab.ready()
    assert not tab.page.locator("#overall").is_visible(), "it is the rating"
    tab.click("5 · excellent") if by == "mouse" else tab.press("5")
    tab.ready(first)
    tab.click("0 · useless") if by == "mouse" else tab.press("0")
    tab.resting()
    assert [one.verdict.stars for one in served.labels()] == [5, 0]


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_critique(served: Any, person: Any, by: str) -> None:
    ask(served, "critique", responses=1)
    tab = person()
    tab.ready()
    tab.press("Control+Enter")
    tab.told("A critique needs some words.")
    tab.page.keyboard.type("Too short,\nand wrong.")  # in the field, which has the focus now
    tab.click("Save") if by == "mouse" else tab.press("Control+Enter")
    tab.resting()
    (said,) = served.labels()
    assert (said.kind, said.comment) == ("critique", "Too short,\nand wrong.")


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_number(served: Any, person: Any, by: str) -> None:
    ask(served, "value", responses=1)
    tab = person()
    tab.ready()
    tab.page.get_by_label("Your number").fill("-1.25")
    tab.click("Save") if by == "mouse" else tab.press("Enter")
    tab.resting()
    (said,) = served.labels()
    assert said.verdict.reward == -1.25


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_skip_and_undo(served: Any, person: Any, by: str) -> None:
    ask(served, "choice", count=3)
    tab = person()
    first = tab.ready()
    texts = tab.texts
    tab.page.get_by_label("Comment").fill("hard to say")
    tab.page.get_by_label("Comment").blur()
    tab.click("Tie") if by == "mouse" else tab.press("0")
    second = tab.ready(first)
    tab.click("Undo") if by == "mouse" else tab.press("u")
    assert tab.ready(second) == first
    assert tab.texts == texts
    assert tab.page.get_by_label("Comment").input_value() == "hard to say"
    assert served.labels() == []
    tab.click("B is better") if by == "mouse" else tab.press("2")
    assert tab.ready(first) == second
    tab.click("Skip") if by == "mouse" else tab.press("s")
    third = tab.ready(second)
    tab.press("1")
    tab.resting()
    assert third not in (first, second)
    assert "2 done · 0 left" in tab.page.locator("#progress-text").text_content()
    (said, _) = served.labels()
    assert (said.texts["ab".index(said.verdict.winner)], said.comment) == (texts[1], "hard to say")


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_pause(served: Any, person: Any, by: str) -> None:
    ask(served, "choice", count=2)
    tab = person()
    first = tab.ready()
    tab.page.get_by_label("Comment").fill("half a thought")
    tab.page.get_by_label("Comment").blur()
    tab.click("Pause") if by == "mouse" else tab.press("p")
    tab.page.get_by_role("heading", name="Paused").wait_for()
    tab.press("1")
    tab.click("Go on") if by == "mouse" else tab.press("p")
    assert tab.ready() == first
    assert tab.page.get_by_label("Comment").input_value() == "half a thought"
    assert served.labels() == []


def test_the_keys_are_shown_and_can_be_switched_off(served: Any, person: Any) -> None:
    ask(served, "choice")
    tab = person()
    tab.ready()
    tab.press("?")
    assert "A is better" in tab.page.locator("#keys-list").text_content()
    tab.press("1")  # an open dialogue takes no answers
    tab.page.get_by_label("Single keys act at once").uncheck()
    tab.press("Escape", "1")
    tab.page.wait_for_timeout(300)
    assert served.labels() == []
    tab.page.reload()
    tab.ready()
    tab.press("1")
    tab.page.wait_for_timeout(300)
    assert served.labels() == []
    tab.click("A is better")
    tab.resting()
    assert len(served.labels()) == 1


def test_differences_are_marked_on_request(served: Any, person: Any) -> None:
    ask_questions(
        served.store, [Question.of("p", ["The quick fox\njumps.", "The slow old fox\njumps high."])], kind="choice"
    )
    tab = person()
    tab.ready()
    texts = tab.texts
    assert tab.page.locator(".answer mark").count() == 0
    tab.press("d")
    marked = tab.page.locator(".answer mark").all_text_contents()
    assert sorted(marked) == ["high", "quick", "slow old"]
    assert tab.texts == texts
    tab.click("Hide differences")
    assert tab.page.locator(".answer mark").count() == 0


def test_the_guideline_opens_when_it_changes(served: Any, person: Any) -> None:
    ask(served, "choice", count=2)
    set_guideline(served.store, "Prefer truth.")
    tab = person()
    first = tab.ready()
    panel = tab.page.locator("#guideline")
    assert panel.get_attribute("open") is not None
    tab.press("g")
    assert panel.get_attribute("open") is None
    set_guideline(served.store, "Prefer truth, then brevity.")
    tab.press("1")
    tab.ready(first)
    assert panel.get_attribute("open") is not None
    assert tab.page.locator("#guideline-text").text_content() == "Prefer truth, then brevity."
    assert tab.page.get_by_text("changed", exact=True).is_visible()
