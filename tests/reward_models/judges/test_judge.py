"""A language model as judge against plain forwards; a remote one that fails, stalls and abstains."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from lm_gym.errors import ConfigError, RewardModelError
from lm_gym.models.language_model import LanguageModel
from lm_gym.reward_models import JudgeRewardModel, RemoteJudge
from lm_gym.testing import check_reward_model

SETTINGS: dict[str, Any] = {
    "template": "{prompt} film : {response} . good or bad :",
    "answers": ("good", "bad"),
    "pair_template": "{prompt} : one {a} two {b} . one or two :",
    "pair_answers": ("one", "two"),
}


@pytest.fixture(scope="module")
def language_model(tiny_model: Any, tokenizer_for: Any) -> LanguageModel:
    return LanguageModel(tiny_model("llama").eval(), tokenizer_for("llama"))


def log_odds(model: LanguageModel, text: str, yes: str, no: str) -> float:
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        log_probs = torch.log_softmax(model.model(ids).logits[0, -1], dim=-1)
    first, second = (model.tokenizer(word)["input_ids"][0] for word in (yes, no))
    return float(log_probs[first] - log_probs[second])


def test_a_grade_is_the_log_odds_of_its_words(language_model: LanguageModel) -> None:
    judge = JudgeRewardModel(language_model, **SETTINGS)
    got = judge.score(["write", "review {response}"], ["the film was great", "dull {prompt}"])
    texts = [
        "write film : the film was great . good or bad :",
        "review {response} film : dull {prompt} . good or bad :",
    ]
    expected = [log_odds(language_model, text, "good", "bad") for text in texts]
    assert got.value.tolist() == pytest.approx(expected, abs=1e-4)


def test_a_comparison_is_the_mean_of_both_orders(language_model: LanguageModel) -> None:
    judge = JudgeRewardModel(language_model, **SETTINGS)
    got = judge.compare(["write"], ["great"], ["dull"])
    straight = log_odds(language_model, "write : one great two dull . one or two :", "one", "two")
    swapped = log_odds(language_model, "write : one dull two great . one or two :", "one", "two")
    assert float(got.value[0]) == pytest.approx((straight - swapped) / 2, abs=1e-4)
    assert got.std is not None
    assert float(got.std[0]) == pytest.approx(abs(straight + swapped) / 2, abs=1e-4)
    other = judge.compare(["write"], ["dull"], ["great"])
    assert float(other.value[0]) == pytest.approx(-float(got.value[0]), abs=1e-5)


def test_against_a_baseline_the_score_is_the_comparison(language_model: LanguageModel) -> None:
    answers = {"write": "dull", "review": "great film"}
    judge = JudgeRewardModel(language_model, baseline=answers, **SETTINGS)
    prompts, responses = ["write", "review", "one"], ["great", "great film", "great"]
    got = judge.score(prompts, responses)
    expected = judge.compare(["write"], ["great"], ["dull"])
    assert got.value[0] == pytest.approx(float(expected.value[0]), abs=1e-5)
    assert got.std is not None
    assert expected.std is not None
    assert got.std[0] == pytest.approx(float(expected.std[0]), abs=1e-5)
    assert got.value[1] == pytest.approx(0, abs=1e-5)  # against itself, in both orders
    assert got.valid.tolist() == [True, True, False]  # nothing to compare with
    written = JudgeRewardModel(language_model, baseline=lambda prompts: ["dull"] * len(prompts), **SETTINGS)
    assert written.score(["write"], ["great"]).value[0] == pytest.approx(float(got.value[0]), abs=1e-5)
    check_reward_model(written)
    short = JudgeRewardModel(language_model, baseline=lambda prompts: ["dull"], **SETTINGS)
    with pytest.raises(RewardModelError, match="judge, baseline: needs one prompt per response, got 2 and 1"):
        short.score(["write", "review"], ["great", "dull"])


def test_a_judge_keeps_the_contract_and_abstains_beyond_its_context(language_model: LanguageModel) -> None:
    judge = JudgeRewardModel(language_model, **SETTINGS)
    check_reward_model(judge)
    assert judge.score(["p", "p"], ["good", "good " * 100]).valid.tolist() == [True, False]


def test_bad_judges_are_named(language_model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{response\}"):
        JudgeRewardModel(language_model, **(SETTINGS | {"template": "{prompt}"}))
    with pytest.raises(ConfigError, match="different tokens"):
        JudgeRewardModel(language_model, **(SETTINGS | {"answers": ("good film", "good")}))
    with pytest.raises(RewardModelError, match="one prompt per response"):
        JudgeRewardModel(language_model, **SETTINGS).score(["p"], [])


def test_a_remote_judge_tries_again_and_abstains(caplog: pytest.LogCaptureFixture) -> None:
    calls: dict[str, int] = {}

    def judge(prompt: str, response: str) -> float | None:
        calls[response] = calls.get(response, 0) + 1
        if response == "flaky" and calls[response] < 3:
            raise ConnectionError("reset")
        if response == "down":
            raise ConnectionError("refused")
        return None if response == "unsure" else float(len(response))

    remote = RemoteJudge(judge, tries=3, wait_s=0.01, timeout_s=20)
    scores = remote.score(["p"] * 4, ["flaky", "down", "unsure", "fine"])
    assert scores.valid.tolist() == [True, False, False, True]
    assert scores.value.tolist() == [5, 0, 0, 4]
    assert calls == {"flaky": 3, "down": 3, "unsure": 1, "fine": 1}
    assert "refused" in caplog.text


def test_a_remote_judge_that_stalls_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    remote = RemoteJudge(lambda p, r: time.sleep(2 * (r == "slow")) or 1.0, timeout_s=0.3)
    start = time.monotonic()
    scores = remote.score(["p", "p"], ["slow", "quick"])
    assert time.monotonic() - start < 1.5
    assert scores.valid.tolist() == [False, True]
    assert "rows [0] had no answer in 0.3 s" in caplog.text


def test_a_remote_judge_that_hangs_is_an_error_after_one_time_limit_however_many_rows() -> None:
    asked: list[str] = []

    def hangs(prompt: str, response: str) -> float:
        asked.append(response)
        time.sleep(60)
        return 1.0

    remote = RemoteJudge(hangs, timeout_s=0.3, workers=2, name="far away")
    start = time.monotonic()
    with pytest.raises(
        RewardModelError, match=r"far away: must answer within timeout_s = 0\.3.*no row of 20.*row 0 .*'r0'"
    ):
        remote.score(["p"] * 20, [f"r{row}" for row in range(20)])
    assert time.monotonic() - start < 2.0  # it was 10 rounds of it
    assert asked == ["r0", "r1"]


def test_rows_that_no_worker_came_to_in_time_abstain() -> None:
    remote = RemoteJudge(lambda p, r: time.sleep(0.5) or 1.0, timeout_s=1.4, workers=1)
    valid = remote.score(["p"] * 20, ["r"] * 20).valid
    assert valid[0]
    assert not valid[3:].any()


def test_a_remote_judge_that_answers_nonsense_is_an_error() -> None:
    with pytest.raises(RewardModelError, match="finite number or None"):
        RemoteJudge(lambda p, r: "good").score(["p"], ["r"])  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError, match="RemoteJudge: tries: must be a whole number >= 1, got 0"):
        RemoteJudge(lambda p, r: 1.0, tries=0)


def test_a_remote_judge_keeps_the_contract() -> None:
    check_reward_model(RemoteJudge(lambda p, r: float(len(r))))
