"""The pages as people see them: hostile and long texts, narrow and dark screens, accessibility, the overview."""

from __future__ import annotations

from typing import Any

import pytest

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import ask_questions, set_guideline

CHAT = (
    "\n\nSystem: Be kind.\n\nHuman: Why is\nthe sky blue?\n\nAssistant: Light scatters.\n\nHuman: More.\n\nAssistant:"
)
KINDS = {"choice": 2, "ranks": 4, "best_of": 3, "thumb": 1, "rating": 1, "critique": 1, "value": 1}
SCREENS = {
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}


def ask_one(served: Any, kind: str) -> None:
    texts = [f"An answer with some words.\n\nNumber {place}." for place in range(KINDS[kind])]
    ask_questions(served.store, [Question.of(CHAT, texts)], kind=kind)
    set_guideline(served.store, "Prefer what is true.\nThen what is short.")


def serious(page: Any) -> list[str]:
    """Faults that axe-core calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def sideways(page: Any) -> int:
    """Pixels by which a page is wider than its screen."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_on_every_screen(served: Any, person: Any, kind: str, screen: str) -> None:
    ask_one(served, kind)
    tab = person(reduced_motion="reduce", **SCREENS[screen])
    tab.ready()
    if kind == "ranks":
        tab.press("2")
    if KINDS[kind] > 1:
        tab.press("d")
    assert serious(tab.page) == []
    assert sideways(tab.page) <= 0
    buttons = tab.page.locator("#verdicts button:visible")
    assert buttons.count() >= 1
    for place in range(buttons.count()):
        box = buttons.nth(place).bounding_box()
        assert box["height"] >= 24, "a target of 24 pixels (WCAG 2.2, 2.5.8)"
        assert box["y"] + box["height"] <= SCREENS[screen]["viewport"]["height"], "within reach without scrolling"


@pytest.mark.parametrize("screen", SCREENS)
def test_the_other_pages(served: Any, person: Any, screen: str) -> None:
    ask_one(served, "choice")
    tab = person(role="owner", reduced_motion="reduce", **SCREENS[screen])
    first = tab.ready()
    tab.press("?")
    assert serious(tab.page) == []
    tab.press("Escape", "p")
    assert serious(tab.page) == []
    tab.press("p")
    assert tab.ready() == first
    tab.press("1")
    tab.resting()
    assert serious(tab.page) == []
    tab.page.goto(f"{served.url}/overview")
    tab.page.get_by_text("Live").wait_for()
    assert serious(tab.page) == []
    assert sideways(tab.page) <= 0
    tab.page.context.clear_cookies()
    tab.page.goto(f"{served.url}/")
    assert tab.page.get_by_role("heading", name="No entry").is_visible()
    assert serious(tab.page) == []


def test_a_fault_is_found(served: Any, person: Any) -> None:
    """The checker sees a field without a label and grey on grey."""
    ask_one(served, "choice")
    tab = person()
    tab.ready()
    tab.page.evaluate(
        """() => {
            document.querySelector('label[for="comment"]').remove();
            document.getElementById("question").setAttribute("hidden", "");
            const faint = document.createElement("p");
            faint.textContent = "faint";
            faint.className = "muted";
            document.getElementById("work").append(faint);
            document.documentElement.style.setProperty("--muted", "#bbbbbb");
        }"""
    )
    assert {one.partition(":")[0] for one in serious(tab.page)} >= {"label", "color-contrast"}


HOSTILE = [
    "<script>window.harmed = true</script>",
    "<img src=x onerror='window.harmed = true'>",
    "\"><svg onload='window.harmed = true'>",
    "{{ 7 * 7 }} javascript:window.harmed=true &amp; &lt;b&gt;",
]


def test_hostile_texts_are_texts(served: Any, person: Any) -> None:
    questions = [Question.of(text, [text, f"{text} too"]) for text in HOSTILE]
    ask_questions(served.store, questions, kind="choice")
    set_guideline(served.store, HOSTILE[1])
    tab = person(name="<b>Ada</b>", role="owner")
    before = None
    for text in HOSTILE:
        before = tab.ready(before)
        tab.press("d")
        assert set(tab.texts) == {text, f"{text} too"}
        assert tab.page.locator("#prompt").text_content() == text
        assert tab.page.locator("#work :is(script, img, svg, b)").count() == 0
        tab.page.get_by_label("Comment").fill(text)
        tab.page.get_by_label("Comment").blur()
        tab.press("1")
    tab.resting()
    tab.page.goto(f"{served.url}/overview")
    tab.page.get_by_role("cell", name=HOSTILE[0]).wait_for()
    assert tab.page.evaluate("window.harmed") is None
    assert sorted(one.comment or "" for one in served.labels()) == sorted(HOSTILE)


def test_hidden_characters_are_seen(served: Any, person: Any) -> None:
    """Overrides of the writing direction and controls are written out; newlines stay."""
    text = "one\ntwo \u202eevil\u202c \x07 \x1b[2J end"
    ask_questions(served.store, [Question.of("p", [text])], kind="thumb")
    tab = person()
    tab.ready()
    marks = tab.page.locator(".answer .hidden-character").all_text_contents()
    assert marks == ["U+202E", "U+202C", "U+0007", "U+001B"]
    assert tab.texts == ["one\ntwo U+202EevilU+202C U+0007 U+001B[2J end"]
    assert tab.page.locator(".answer .text").evaluate("(node) => getComputedStyle(node).whiteSpace") in (
        "pre-wrap",
        "break-spaces",
    )


def test_a_line_of_a_million_characters(served: Any, person: Any) -> None:
    ask_questions(served.store, [Question.of("p", ["x" * 1_000_000, "y"])], kind="choice")
    tab = person(**SCREENS["phone"])
    tab.ready()
    assert sideways(tab.page) <= 0
    assert max(map(len, tab.texts)) < 21_000
    tab.press("d")
    tab.page.get_by_role("button", name="Show the other 980,000 characters").click()
    assert max(map(len, tab.texts)) == 1_000_000
    assert sideways(tab.page) <= 0


def test_a_chat_is_a_conversation(served: Any, person: Any) -> None:
    ask_one(served, "choice")
    tab = person()
    tab.ready()
    assert tab.page.locator(".turn .role").all_text_contents() == ["System", "User", "Assistant", "User"]
    assert tab.page.locator(".turn .text").nth(1).text_content() == "Why is\nthe sky blue?"


def test_answers_stand_side_by_side_and_below_each_other(served: Any, person: Any) -> None:
    ask_one(served, "choice")
    for screen, side_by_side in (("laptop", True), ("phone", False)):
        tab = person(name=screen, **SCREENS[screen])
        if screen == "laptop":
            tab.ready()
            first, second = (tab.page.locator(".answer").nth(place).bounding_box() for place in (0, 1))
            tab.press("p")
            tab.page.get_by_role("heading", name="Paused").wait_for()
            tab.page.wait_for_timeout(200)
        else:
            tab.ready()
            first, second = (tab.page.locator(".answer").nth(place).bounding_box() for place in (0, 1))
        assert (first["y"] == second["y"]) is side_by_side


def test_everything_is_reached_without_a_mouse(served: Any, person: Any) -> None:
    """By Tab alone, in the order of the page, with a focus that is seen."""
    ask_one(served, "choice")
    tab = person()
    tab.ready()
    reached = []
    for _ in range(20):
        tab.press("Tab")
        reached.append(
            tab.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 12)")
        )
        outline = tab.page.evaluate(
            "(() => { const at = document.activeElement; const of = at.type === 'radio' ? at.nextElementSibling : at;"
            " return getComputedStyle(of).outlineStyle; })()"
        )
        assert outline != "none" or tab.page.evaluate("document.activeElement === document.body"), reached[-1]
    wanted = ["compare", "overall-0", "comment", "A is better", "undo", "skip"]
    found = [next((one for one in reached if one.startswith(each)), None) for each in wanted]
    assert None not in found
    assert [reached.index(one) for one in found] == sorted(reached.index(one) for one in found)


def test_the_overview_is_live(served: Any, person: Any) -> None:
    ask_questions(served.store, [Question.of(f"prompt {n}", ["a", "b"]) for n in range(3)], kind="choice")
    owner = person(name="owner", role="owner", path="/overview")
    owner.page.get_by_text("Nobody has answered yet.").wait_for()
    ada = person()
    ada.ready()
    ada.press("1")
    owner.page.get_by_role("cell", name="Ada").first.wait_for()
    assert owner.page.locator("#tiles").get_by_text("of 3").is_visible()
    served.stop()
    owner.saved("waiting")
    served.start()
    owner.saved("saved")
