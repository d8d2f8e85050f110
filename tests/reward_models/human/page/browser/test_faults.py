"""What goes wrong between a browser and its server: no answer is lost, and none is stored twice."""

from __future__ import annotations

from typing import Any

import pytest

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import ask_questions, revoke_links
from lm_gym.reward_models.human.page.process import serve_in_process
from lm_gym.reward_models.human.page.settings import PageSettings


@pytest.fixture
def asked(served: Any) -> Any:
    """A store of six choices."""
    questions = [Question.of(f"prompt {number}", [f"{number}.a", f"{number}.b"]) for number in range(6)]
    ask_questions(served.store, questions, kind="choice")
    return served


def queued(tab: Any) -> int:
    return tab.page.evaluate("Object.keys(localStorage).filter((key) => key.includes(':queue:')).length")


def test_a_reload_keeps_question_and_draft(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    texts = tab.texts
    tab.page.get_by_label("Comment").fill("not done yet")
    tab.page.get_by_label("3, fair").check(force=True)
    tab.page.reload()
    assert tab.ready() == first
    assert tab.texts == texts
    assert tab.page.get_by_label("Comment").input_value() == "not done yet"
    assert tab.page.get_by_label("3, fair").is_checked()
    tab.press("1")
    tab.ready(first)
    assert [(one.comment, one.overall_rating) for one in asked.labels()] == [("not done yet", 3)]


def test_a_reload_keeps_half_a_ranking(served: Any, person: Any) -> None:
    ask_questions(served.store, [Question.of("p", ["a", "b", "c", "d"])], kind="ranks")
    tab = person()
    tab.ready()
    tab.press("3", "1", "=")
    tab.page.reload()
    tab.ready()
    assert tab.page.locator("#ranking-list .place").all_text_contents() == ["1st", "=1st", "–", "–"]
    assert tab.page.locator("#ranking-list .name").all_text_contents()[:2] == ["Answer 3", "Answer 1"]


def test_the_back_button(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    tab.press("1")
    second = tab.ready(first)
    tab.page.goto(f"{asked.url}/static/icon.svg")
    tab.page.go_back()
    assert tab.ready() == second
    tab.press("2")
    tab.ready(second)
    assert len(asked.labels()) == 2


def test_a_double_click_and_a_held_key_answer_once(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    tab.page.get_by_role("button", name="A is better").dblclick()
    second = tab.ready(first)
    assert len(asked.labels()) == 1
    tab.page.keyboard.down("2")
    tab.ready(second)
    tab.page.keyboard.down("2")  # not let go meanwhile: it repeats
    tab.page.wait_for_timeout(300)
    tab.page.keyboard.up("2")
    assert len(asked.labels()) == 2


def test_a_second_press_does_not_answer_a_question_that_has_just_come(asked: Any, person: Any) -> None:
    """It comes at the moment at which the next question is drawn, which nobody can have read."""
    tab = person()
    first = tab.ready()
    tab.page.evaluate(
        """() => new MutationObserver(() => {
            if (document.body.dataset.mode === "asking") {
                document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", bubbles: true }));
                document.querySelector("#verdicts button").click();
            }
        }).observe(document.getElementById("prompt"), { childList: true, subtree: true })"""
    )
    tab.press("1")
    tab.ready(first)
    tab.page.wait_for_timeout(300)
    assert len(asked.labels()) == 1


def test_two_tabs(asked: Any, person: Any, second_tab: Any) -> None:
    """Both show one question; the second answer to it is none, and its tab goes on."""
    tab = person()
    first = tab.ready()
    other = second_tab(tab)
    assert other.ready() == first
    tab.press("1")
    second = tab.ready(first)
    other.press("2")
    other.told("Answered already, in another tab.")
    assert other.ready(first) == second
    other.press("2")
    other.ready(second)
    assert queued(other) == 0
    assert len(asked.labels()) == 2


def test_offline_and_back(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    tab.page.context.set_offline(True)
    tab.press("1")
    tab.saved("waiting")
    assert "1 answer kept here" in tab.page.locator("#saved").text_content()
    assert tab.page.get_by_role("heading", name="Waiting for the connection").is_visible()
    assert asked.labels() == []
    tab.page.context.set_offline(False)
    tab.ready(first)
    tab.saved()
    assert queued(tab) == 0
    assert len(asked.labels()) == 1


def test_a_server_that_restarts_under_an_open_page(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    tab.page.get_by_label("Comment").fill("kept")
    tab.page.get_by_label("Comment").blur()
    asked.stop()
    tab.press("2")
    tab.saved("waiting")
    tab.page.wait_for_timeout(700)
    assert queued(tab) == 1
    asked.start()
    tab.ready(first)
    assert [one.comment for one in asked.labels()] == ["kept"]
    assert queued(tab) == 0


def test_an_answer_outlives_the_tab(asked: Any, person: Any, second_tab: Any) -> None:
    """Answered without a connection, closed, opened again later."""
    tab = person()
    tab.ready()
    tab.page.context.set_offline(True)
    tab.press("1")
    tab.saved("waiting")
    context = tab.page.context
    tab.page.close()
    context.set_offline(False)
    assert asked.labels() == []
    tab.page = context.new_page()
    later = second_tab(tab)
    later.ready()
    assert len(asked.labels()) == 1
    assert queued(later) == 0


def test_an_answer_whose_acknowledgement_was_lost_is_stored_once(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    lost = []

    def lose(route: Any) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.fetch().status)
            route.abort()

    tab.page.route("**/api/answers", lose)
    tab.press("1")
    tab.ready(first)
    assert lost == [200]
    assert len(asked.labels()) == 1


def test_a_busy_server_is_asked_again(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    answers = [429, 503]
    tab.page.route(
        "**/api/answers",
        lambda route: route.fulfill(status=answers.pop(), body="no") if answers else route.continue_(),
    )
    tab.press("1")
    tab.saved("waiting")
    tab.ready(first)
    assert len(asked.labels()) == 1


def test_undo_without_a_connection(asked: Any, person: Any) -> None:
    tab = person()
    first = tab.ready()
    tab.press("1")
    second = tab.ready(first)
    tab.page.context.set_offline(True)
    tab.press("u")
    tab.saved("waiting")
    tab.page.context.set_offline(False)
    assert tab.ready(second) == first
    assert asked.labels() == []


def test_a_revoked_link_keeps_what_was_not_sent(asked: Any, person: Any) -> None:
    tab = person()
    tab.ready()
    revoke_links(asked.store, "Ada")
    tab.press("1")
    tab.page.get_by_role("heading", name="Your link is no longer good").wait_for()
    assert "1 unsent answer is kept" in tab.page.locator("#rest-text").text_content()
    assert queued(tab) == 1
    assert asked.labels() == []


def test_questions_that_come_later_are_shown_by_themselves(served: Any, person: Any) -> None:
    tab = person()
    tab.resting()
    ask_questions(served.store, [Question.of("late", ["a", "b"])], kind="choice")
    assert tab.ready()


def test_a_server_in_a_process_of_its_own(asked: Any, person: Any) -> None:
    """The one that a trainer starts: it takes over the address, and ends when it is told to."""
    tab = person()
    first = tab.ready()
    asked.stop()
    with serve_in_process(asked.place, PageSettings(port=asked.port)) as server:
        assert server.url == asked.url
        tab.press("1")
        tab.ready(first)
        assert len(asked.labels()) == 1
    assert server.process.returncode == 0


def test_a_browser_on_a_plain_address(asked: Any, person: Any) -> None:
    """Over http at an address that is not this machine's own, browsers have neither of these."""
    tab = person(script="delete Navigator.prototype.locks; delete Crypto.prototype.randomUUID;")
    first = tab.ready()
    assert tab.page.evaluate("[navigator.locks, crypto.randomUUID]") == [None, None]
    tab.page.context.set_offline(True)
    tab.press("1")
    tab.saved("waiting")
    tab.page.context.set_offline(False)
    tab.ready(first)
    assert len(asked.labels()) == 1


def test_a_browser_that_keeps_nothing(asked: Any, person: Any) -> None:
    """As in some private windows: the page works, says so, and holds the answer while it is open."""
    tab = person(script="Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };")
    first = tab.ready()
    assert "leave the page open" in tab.page.locator("#saved").text_content()
    tab.page.context.set_offline(True)
    tab.press("1")
    tab.saved("waiting")
    tab.page.context.set_offline(False)
    tab.ready(first)
    assert len(asked.labels()) == 1


def test_an_answer_that_the_server_refuses_holds_up_no_other(asked: Any, person: Any) -> None:
    """It stays in the browser, and is told of."""
    tab = person()
    first = tab.ready()
    refusals = [422]
    tab.page.route(
        "**/api/answers",
        lambda route: route.fulfill(status=refusals.pop(), body="{}") if refusals else route.continue_(),
    )
    tab.press("1")
    tab.told("The server refused an answer; it is kept in this browser.")
    tab.page.wait_for_timeout(400)
    assert tab.ready() == first, "it is asked again"
    tab.press("2")
    tab.ready(first)
    assert len(asked.labels()) == 1
    assert tab.page.evaluate("Object.keys(localStorage).filter((key) => key.includes(':refused:')).length") == 1
