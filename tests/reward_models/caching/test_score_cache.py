from __future__ import annotations

import copy
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lm_gym.errors import ArtifactError, RewardModelError
from lm_gym.reward_models import CachedRewardModel
from lm_gym.reward_models.caching.text_store import TextStore, text_key
from lm_gym.scoring.protocol import Scores


class Counting:
    """Scores by length, and counts what it is asked."""

    name = "counting"

    def __init__(self, std: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self.std = std

    def score(self, prompts, responses) -> Scores:
        self.asked += zip(prompts, responses, strict=True)
        value = np.array([len(text) for text in responses], dtype=np.float32)
        valid = np.array([text != "?" for text in responses])
        return Scores(value=np.where(valid, value, 0), valid=valid, std=value / 2 if self.std else None)


def test_each_pair_of_texts_is_asked_once() -> None:
    model = Counting()
    cached = CachedRewardModel(model, chunk_rows=2)
    first = cached.score(["p", "p", "q", "p"], ["one", "three", "one", "one"])
    assert first.value.tolist() == [3, 5, 3, 3]
    assert cached.score(["p", "q", "r"], ["three", "one", "?"]).value.tolist() == [5, 3, 0]
    assert model.asked == [("p", "one"), ("p", "three"), ("q", "one"), ("r", "?")]
    assert cached.score(["r", "p"], ["?", "one"]).valid.tolist() == [False, True]
    assert model.asked[4:] == [("r", "?")]  # an abstention may be a passing one
    assert len(cached.score([], [])) == 0
    assert first.std is None


def test_the_std_comes_back_too() -> None:
    cached = CachedRewardModel(Counting(std=True))
    for _ in range(2):
        assert cached.score(["p", "p"], ["one", "three"]).std.tolist() == [1.5, 2.5]


def test_a_file_keeps_scores_between_objects_and_through_an_interruption(tmp_path: Path) -> None:
    class Tired(Counting):
        def score(self, prompts, responses) -> Scores:
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().score(prompts, responses)

    texts = [f"text {number}" for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        CachedRewardModel(Tired(), path=tmp_path / "scores.sqlite", identity="counting", chunk_rows=2).score(
            ["p"] * 10, texts
        )
    model = Counting()
    again = CachedRewardModel(model, path=tmp_path / "scores.sqlite", identity="counting", chunk_rows=2)
    assert again.score(["p"] * 10, texts).value.tolist() == [6.0] * 10
    assert len(model.asked) == 6
    (tmp_path / "broken.sqlite").write_text("no database at all, but long enough to be taken for one" * 20)
    with pytest.raises(ArtifactError, match="must be a whole SQLite file"):
        CachedRewardModel(model, path=tmp_path / "broken.sqlite", identity="counting")


def test_the_oldest_leave_a_full_memory() -> None:
    model = Counting()
    cached = CachedRewardModel(model, size=2)
    for text in ("a", "bb", "ccc", "bb", "a"):
        cached.score(["p"], [text])
    assert [text for _, text in model.asked] == ["a", "bb", "ccc", "a"]


def test_errors_are_those_of_the_model() -> None:
    with pytest.raises(RewardModelError, match="counting: needs one prompt per response"):
        CachedRewardModel(Counting()).score(["p"], [])
    with pytest.raises(RewardModelError, match="must return one score per response"):
        CachedRewardModel(lambda prompts, completions: [1.0]).score(["p", "p"], ["a", "b"])


def test_a_store_may_be_copied_pickled_and_used_in_threads(tmp_path: Path) -> None:
    store = TextStore(tmp_path / "x.sqlite")
    store.put({b"k": b"v"})
    found: list[dict[bytes, bytes]] = []
    thread = threading.Thread(target=lambda: found.append(store.get([b"k", b"other"])))
    thread.start()
    thread.join()
    assert (
        found == [copy.deepcopy(store).get([b"k"])] == [pickle.loads(pickle.dumps(store)).get([b"k"])] == [{b"k": b"v"}]
    )


def test_a_full_store_stands_threads() -> None:
    store, failures = TextStore(size=50), list[Exception]()

    def work(seed: int) -> None:
        try:
            for number in range(2000):
                key = f"{seed} {number}".encode()
                store.put({key: b"x"})
                store.get([key, b"other"])
        except Exception as error:  # reported below, not in a thread
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_keys_tell_rows_apart() -> None:
    rows = [("a", "b"), ("ab", ""), ("", "ab"), ("b", "a"), ("a", "b ")]
    assert len({text_key(*row) for row in rows}) == len(rows)
    assert text_key("a", "b") == text_key("a", "b")
