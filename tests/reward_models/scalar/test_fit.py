from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lm_gym.errors import ConfigError, DataError, DivergedError
from lm_gym.reward_models import (
    BradleyTerryAnnotator,
    Judgement,
    LossConfig,
    PreferenceRewardModel,
    Question,
    RewardTrainingConfig,
    evaluate_reward_model,
    plackett_luce_nll,
)
from lm_gym.reward_models.scalar import trainer

QUICK = RewardTrainingConfig(epochs=3, learning_rate=3e-3, items_per_step=16)


def weights(reward_model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in reward_model.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_it_learns_a_truth_from_rankings(kind: str, reward_of, judged_texts) -> None:
    reward_model = reward_of(kind)
    train, test = judged_texts(200, 4, 0), judged_texts(50, 4, 1)
    before = evaluate_reward_model(reward_model, test).accuracy
    summary = reward_model.fit(train, QUICK)
    assert before < 0.75
    assert evaluate_reward_model(reward_model, test).accuracy > 0.85
    assert summary["losses"][-1][1] < summary["losses"][0][1]
    assert not reward_model.model.training


def test_it_learns_from_the_pairs_of_a_noisy_annotator(reward_of, word_score, judged_texts) -> None:
    texts = judged_texts(300, 2, 2)
    annotator = BradleyTerryAnnotator(word_score, temperature=0.5, seed=0)
    pairs = annotator.ask([Question.of(one.prompt, one.texts) for one in texts])
    reward_model = reward_of("llama")
    reward_model.fit(pairs, QUICK)
    assert evaluate_reward_model(reward_model, judged_texts(50, 4, 3)).accuracy > 0.85


def test_the_first_loss_is_that_of_the_likelihood(reward_of, judged_texts) -> None:
    reward_model = reward_of("llama")
    rankings = judged_texts(16, 4, 0)
    expected = []
    for one in rankings:
        scores = reward_model.score([one.prompt] * len(one.texts), one.texts).value
        row = torch.tensor(scores)[None]
        nll, _ = plackett_luce_nll(row, torch.tensor([one.places]), torch.ones_like(row, dtype=torch.bool))
        expected.append(nll.item())
    config = RewardTrainingConfig(epochs=1, items_per_step=16, log_every_steps=1, progress=False)
    # A Llama has no dropout, so the training pass scores as the evaluation pass does.
    assert reward_model.fit(rankings, config)["losses"] == [(1, pytest.approx(np.mean(expected), rel=1e-4))]


@pytest.mark.parametrize("sizes", [(16, 1), (4, 4), (5, 4)])
def test_gradient_accumulation_divides_by_all_rankings(sizes: tuple[int, int], reward_of, judged_texts) -> None:
    tie = Judgement.ranking("write a review :", ("good", "bad"), (1, 1))
    results = []
    for batch, steps in (sizes, (16, 1)):
        reward_model = reward_of("llama")
        config = RewardTrainingConfig(
            epochs=1,
            learning_rate=1e-3,
            items_per_step=batch,
            gradient_accumulation_steps=steps,
            warmup_share=0.0,
            lr_schedule="constant_with_warmup",
            log_every_steps=1,
        )
        losses = reward_model.fit([*judged_texts(16, 4, 0), tie], config)["losses"]
        assert len(losses) == 1
        results.append((losses[0][1], reward_model.model.score.weight.detach().clone()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    # Adam's first step is near the sign of the gradient, so entries near 0 amplify rounding.
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-3)


def test_the_same_seed_gives_the_same_weights(reward_of, judged_texts) -> None:
    runs = []
    for seed in (0, 0, 1):
        reward_model = reward_of("gpt2")
        reward_model.fit(judged_texts(40, 3, 0), RewardTrainingConfig(seed=seed, learning_rate=1e-3))
        runs.append(weights(reward_model))
        torch.rand(7)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_score_centering_moves_the_mean_to_zero(reward_of, judged_texts) -> None:
    means = {}
    for weight in (0.0, 1.0):
        reward_model = reward_of("llama")
        with torch.no_grad():
            reward_model.model.score.weight.mul_(10)
        rankings = judged_texts(100, 4, 0)
        reward_model.fit(
            rankings, RewardTrainingConfig(epochs=2, learning_rate=3e-3, loss=LossConfig(score_centering=weight))
        )
        texts = [text for one in rankings for text in one.texts]
        means[weight] = abs(reward_model.score(["write a review :"] * len(texts), texts).value.mean())
    print(means)
    assert means[1.0] < means[0.0] / 2


def test_the_process_is_left_as_it_was(reward_of, judged_texts, tmp_path, monkeypatch, capfd) -> None:
    from accelerate.state import AcceleratorState, PartialState
    from transformers.utils import logging as hf_logging

    monkeypatch.chdir(tmp_path)
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    PartialState._shared_state["mark"] = 1

    def state() -> tuple[object, ...]:
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            dict(os.environ),
            hf_logging.get_verbosity(),
            dict(PartialState._shared_state),
            dict(AcceleratorState._shared_state),
        )

    reward_model = reward_of("gpt2")
    try:
        with torch.no_grad():
            before = state()
            reward_model.fit(judged_texts(20, 3, 0), RewardTrainingConfig(learning_rate=1e-3))
            assert state() == before
    finally:
        del PartialState._shared_state["mark"]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


class Killed(Exception):
    pass


def _killed_at(monkeypatch, update: int) -> None:
    real, calls = trainer.JudgementTrainer.compute_loss, []

    def compute_loss(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > update:
            raise Killed
        return real(self, *args, **kwargs)

    monkeypatch.setattr(trainer.JudgementTrainer, "compute_loss", compute_loss)


def test_a_killed_run_goes_on_to_the_same_weights(save_base, judged_texts, tmp_path) -> None:
    base = save_base("gpt2", tmp_path / "lm")
    rankings = judged_texts(48, 6, 0)
    config = RewardTrainingConfig(
        epochs=2, learning_rate=1e-3, items_per_step=8, max_responses=3, checkpoint_every_steps=4, log_every_steps=2
    )
    whole = PreferenceRewardModel.train(rankings, base, config, output_dir=tmp_path / "whole", device="cpu")
    assert whole.training["updates"] > 12
    with pytest.MonkeyPatch.context() as patch:
        _killed_at(patch, 10)
        with pytest.raises(Killed):
            PreferenceRewardModel.train(rankings, base, config, output_dir=tmp_path / "killed", device="cpu")
    checkpoints = tmp_path / "killed.checkpoints" / "checkpoints"
    assert (checkpoints / "checkpoint-8").is_dir()
    (checkpoints / "checkpoint-12").mkdir()  # a newer one that was cut short
    with pytest.MonkeyPatch.context() as patch:
        _killed_at(patch, whole.training["updates"] - 8)
        resumed = PreferenceRewardModel.train(rankings, base, config, output_dir=tmp_path / "killed", device="cpu")
    assert same(weights(whole), weights(resumed))
    assert resumed.training["losses"] == whole.training["losses"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "lm", "whole"]
    assert same(weights(PreferenceRewardModel.load(tmp_path / "killed", device="cpu")), weights(whole))


def test_checkpoints_of_another_run_are_refused(reward_of, judged_texts, tmp_path) -> None:
    config = RewardTrainingConfig(checkpoint_every_steps=1)
    reward_of("gpt2").fit(judged_texts(8, 3, 0), config, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"these differ: input judgements .*input texts_as_read"):
        reward_of("gpt2").fit(judged_texts(8, 3, 1), config, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"these differ: seed \(was 0, is 1\)"):
        reward_of("gpt2").fit(judged_texts(8, 3, 0), replace(config, seed=1), checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match="these differ: input start_weights"):
        reward_of("llama").fit(judged_texts(8, 3, 0), config, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"needs checkpoint_dir"):
        reward_of("gpt2").fit(judged_texts(8, 3, 0), config)


def test_a_model_is_built_fitted_and_saved_in_one_call(save_base, judged_texts, tmp_path) -> None:
    base, out = save_base("llama", tmp_path / "lm"), tmp_path / "rm"
    PreferenceRewardModel.train(judged_texts(40, 3, 0), str(base), QUICK, output_dir=out, name="critic")
    again = PreferenceRewardModel.load(out)
    assert again.name == "critic"
    assert again.training["judgements"] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm", "rm"]


def test_training_drops_the_old_normalizer(reward_of, judged_texts) -> None:
    reward_model = reward_of("gpt2")
    reward_model.fit_normalizer(["one", "one"], ["good", "bad"], fitted_on="two texts")
    reward_model.fit(judged_texts(8, 3, 0))
    assert reward_model.normalizer is None


def test_data_that_teaches_nothing_is_refused(reward_of) -> None:
    tie = Judgement.ranking("one", ("good", "bad"), (1, 1))
    for rankings in ([], [tie, tie]):
        with pytest.raises(DataError, match="some judgement must tell responses apart"):
            reward_of("gpt2").fit(rankings)
    with pytest.raises(DataError, match="every text must have a token"):
        reward_of("gpt2").fit([Judgement.ranking("", ("", "good"), (2, 1))])


def test_a_loss_that_is_no_number_stops_before_the_update(reward_of, judged_texts, tmp_path) -> None:
    reward_model = reward_of("gpt2")
    config = RewardTrainingConfig(checkpoint_every_steps=1, items_per_step=4, learning_rate=1e-3)
    real, seen = trainer.JudgementTrainer.compute_loss, []

    def compute_loss(self, *args, **kwargs):
        seen.append(weights(reward_model))
        return real(self, *args, **kwargs) * (float("nan") if len(seen) == 3 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.JudgementTrainer, "compute_loss", compute_loss)
        with pytest.raises(DivergedError, match="the loss of step 3 must be finite, got nan"):
            reward_model.fit(judged_texts(16, 3, 0), config, checkpoint_dir=tmp_path)
    assert same(weights(reward_model), seen[2])  # as they were before the bad update
    assert not same(seen[2], seen[0])
    assert not reward_model.model.training
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "lm_gym_manifest.json").is_file()


def test_a_gradient_that_is_no_number_stops_before_the_update(reward_of, judged_texts) -> None:
    reward_model = reward_of("gpt2")
    reward_model.model.score.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(reward_model)
    with pytest.raises(DivergedError, match="the norm of the gradient of step 1 must be finite"):
        reward_model.fit(judged_texts(8, 3, 0))
    assert same(weights(reward_model), before)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"max_responses": 1},
        {"warmup_share": 1.0},
        {"weight_decay": -1.0},
        {"mixed_precision": "fp8"},
        {"lr_schedule": "polynomial"},
        {"checkpoint_every_steps": 0},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(ConfigError, match=rf"RewardTrainingConfig\.{name}: must be"):
        RewardTrainingConfig(**bad)  # type: ignore[arg-type]


def test_real_judgements_are_learned_from(data_folder: Path, tiny_model, tokenizer_for) -> None:
    from lm_gym.reward_models import load_judgements

    rankings = load_judgements(data_folder / "arguments" / "rankings.jsonl").judgements
    assert len(rankings) == 24
    model = PreferenceRewardModel.from_base(tiny_model("llama"), tokenizer_for("llama"), device="cpu", max_length=64)
    model.fit(rankings[:4], RewardTrainingConfig(learning_rate=1e-3))
    # The baseline is a property of the data, whatever the model.
    assert 0.6 < evaluate_reward_model(model, rankings[4:6]).length_accuracy < 0.9
