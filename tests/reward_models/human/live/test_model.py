"""People as a reward model: waiting, fallbacks, reuse, environments, interruptions, and the real page."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import lm_gym
from lm_gym.errors import ConfigError
from lm_gym.reward_models.human import (
    HumanQuestions,
    HumanRewardModel,
    LabelRules,
    LabelStore,
    PageTransport,
    SimulatedPerson,
    StoreTransport,
    audit,
    default_labels,
    judgements_of,
    make_link,
    serve_in_process,
    set_rules,
)
from lm_gym.scoring.protocol import RewardModel, checked_scores


def length(prompt: str, response: str) -> float:
    return min(len(response) / 10, 1.0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "labels.db"
    with LabelStore.open(place) as store:
        set_rules(store, LabelRules(repeat_share=0.0, check_share=0.0))
    return place


def test_people_score_a_batch(place: Path, answering) -> None:
    with LabelStore.open(place) as store, answering(place, length, people=2):
        model = HumanRewardModel(store, timeout_seconds=30)
        found = checked_scores(model, ["p"] * 3, ["", "12345", "1234567890"])
    assert isinstance(model, RewardModel)
    assert found.value == pytest.approx([-1.0, (round(2.5) - 2.5) / 2.5, 1.0])
    assert found.valid.all()
    assert (dict(model.counts), model.people_share) == ({"people": 3}, 1.0)


def test_what_was_answered_needs_nobody_again(place: Path, answering) -> None:
    with LabelStore.open(place) as store:
        with answering(place, length):
            first = HumanRewardModel(store, timeout_seconds=30).score(["p"], ["12345"])
        again = HumanRewardModel(store, timeout_seconds=0.1).score(["p"], ["12345"])
        with store.reading() as state:
            assert [one.source for one in audit(state)] == ["people", "people"]
    assert (again.value == first.value).all()


def test_without_people_the_fallback_stands_in(place: Path, answering) -> None:
    with LabelStore.open(place) as store:
        nobody = HumanRewardModel(store, timeout_seconds=0.1)
        found = nobody.score(["p"], ["x"])
        assert (found.value[0], found.valid[0], nobody.counts["abstain"]) == (0.0, False, 1)
        model = HumanRewardModel(store, timeout_seconds=0.1, fallback=lambda completions: [0.25] * len(completions))
        assert model.score(["p"], ["y"]).value[0] == 0.25
        average = HumanRewardModel(store, timeout_seconds=0.1, fallback="average")
        assert not average.score(["p"], ["z"]).valid[0]  # nobody scored anything yet
        with answering(place, length):
            HumanRewardModel(store, timeout_seconds=30).score(["p", "p"], ["", "1234567890"])
        assert average.score(["p"], ["z2"]).value[0] == pytest.approx(0.0)  # of -1 and 1; x, y and z were never paid
        with store.reading() as state:
            sources = [one.source for one in audit(state)]
    assert sources[:3] == ["abstain", model._standing_in().name, "abstain"]
    assert sources[-1] == "average"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "choice"}, "kind"),
        ({"timeout_seconds": 0.0}, "timeout_seconds"),
        ({"overlap": 0}, "overlap"),
        ({"store": ""}, "store"),
    ],
)
def test_bad_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HumanRewardModel(**change)


def test_the_environment_keeps_gymnasiums_contract(place: Path, answering) -> None:
    with LabelStore.open(place) as store, answering(place, length):
        env = gymnasium.make("lm_gym/HumanFeedback-v0", store=str(place), timeout_seconds=30, max_new_tokens=4)
        env.unwrapped.reward_model._place = store  # no page is needed here
        assert env.spec.nondeterministic
        check_env(env.unwrapped, skip_render_check=True)
        env.reset(seed=0)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            over = terminated or truncated
        assert info["score_valid"] == 1.0
        env.close()


def test_the_environment_refuses_another_reward_model() -> None:
    with pytest.raises(ConfigError, match="people are its reward model"):
        gymnasium.make("lm_gym/HumanFeedback-v0", reward_model="oracle")


def test_the_name_stands_for_people_everywhere(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LM_GYM_LABELS", str(tmp_path / "mine.db"))
    model = lm_gym.load_reward_model("human")
    assert isinstance(model, HumanRewardModel)
    assert default_labels() == str(tmp_path / "mine.db")
    assert not (tmp_path / "mine.db").exists()  # nothing is opened before the first score


def test_a_person_at_the_real_page(place: Path) -> None:
    """The model starts the page; a simulated person answers over HTTP."""
    model, found = HumanRewardModel(place, timeout_seconds=60), []
    waiter = threading.Thread(target=lambda: found.append(model.score(["p", "p"], ["12345678", "1"])))
    waiter.start()
    with LabelStore.open(place) as store, serve_in_process(place) as page:
        token = make_link(store, "guest")
        with PageTransport(page.url, token) as way:
            person = SimulatedPerson(way, length)
            while person.answered < 2:
                if not person.answer_next():
                    time.sleep(0.02)
    waiter.join()
    assert model._server is not None
    assert model._server.runs
    model.close()
    assert found[0].value == pytest.approx([0.6, -1.0])


def test_a_person_who_is_too_slow_still_answers_what_is_waited_for(store) -> None:
    """Three of four in time, in every batch: what was given up goes last."""
    questions = HumanQuestions(store, timeout_seconds=1)
    person = SimulatedPerson(StoreTransport(store, "one"), length)
    for batch in range(6):
        tickets = questions.ask(["p"] * 4, [f"{batch} {row}" for row in range(4)])
        for _ in range(3):
            assert person.answer_next()
        states = [one.state for one in questions.outcomes(tickets)]
        assert states.count("value") == 3


def test_a_page_that_dies_is_started_anew(place: Path) -> None:
    model, found = HumanRewardModel(place, timeout_seconds=60), []
    waiter = threading.Thread(target=lambda: found.append(model.score(["p"], ["12345678"])))
    waiter.start()
    while model._server is None:
        time.sleep(0.02)
    first = model._server
    first.process.kill()
    while model._server is first or model._server is None:
        time.sleep(0.02)
    assert model._server.runs
    with LabelStore.open(place) as store:
        assert SimulatedPerson(StoreTransport(store, "one"), length).answer_next()
    waiter.join()
    model.close()
    assert found[0].value == pytest.approx([0.6])


TRAINER = """
import sys
from lm_gym.reward_models.human import HumanRewardModel, LabelStore
store = LabelStore.open(sys.argv[1])
model = HumanRewardModel(store, timeout_seconds=60)
for number in range(20):
    model.score(["p"] * 3, [f"{number} {row}" for row in range(3)])
    print(number, flush=True)
"""


def test_a_trainer_that_is_killed_asks_nobody_twice(place: Path, answering) -> None:
    rng = np.random.default_rng(0)
    with answering(place, length) as people:
        for kill in range(6):
            trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(place)], stdout=subprocess.PIPE)
            assert trainer.stdout is not None
            if kill < 5:
                trainer.stdout.readline()
                time.sleep(rng.uniform(0.0, 0.2))
                trainer.kill()
            assert trainer.wait() == (-signal.SIGKILL if kill < 5 else 0)
            trainer.stdout.close()
    with LabelStore.open(place) as store, store.reading() as state:
        assert len(judgements_of(state)) == len(state.items) == 60
        assert people[0].answered == 60
