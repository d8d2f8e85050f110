"""Adapters: what learns, what is saved, and that a fresh process scores the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError
from lm_gym.reward_models import (
    LoraSettings,
    PreferenceRewardModel,
    RewardTrainingConfig,
    evaluate_reward_model,
)
from lm_gym.reward_models.saving.record import write_record
from lm_gym.scoring.handles import load_reward_model

KINDS = ["gpt2", "llama", "bert"]
LORA = LoraSettings(rank=4, alpha=8)
QUICK = RewardTrainingConfig(epochs=6, learning_rate=5e-3, items_per_step=8)
PROMPTS = ["write a review :"] * 3
RESPONSES = ["good film", "the film was very dull", "bad bad and awful film . good"]

FRESH = """
import json, sys, torch
torch.set_num_threads(1)
from lm_gym.scoring.handles import load_reward_model
prompts, responses = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    print(json.dumps([float(value).hex() for value in load_reward_model(folder).score(prompts, responses).value]))
"""


def exact(reward_model: PreferenceRewardModel) -> list[str]:
    return [float(value).hex() for value in reward_model.score(PROMPTS, RESPONSES).value]


def trained(kind: str, save_base, judged_texts, tmp_path: Path, **settings) -> PreferenceRewardModel:
    base = save_base(kind, tmp_path / f"{kind}-lm")
    made = PreferenceRewardModel.from_base(base, lora=LORA, seed=5, device="cpu", **settings)  # heads load with seed 0
    made.fit(judged_texts(100, 4, 0), QUICK)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_updates_and_the_head_learn(kind: str, save_base, judged_texts, tmp_path) -> None:
    base = save_base(kind, tmp_path / "lm")
    made = PreferenceRewardModel.from_base(base, lora=LORA, device="cpu")
    before = {name: weight.detach().clone() for name, weight in made.model.named_parameters()}
    made.fit(judged_texts(100, 4, 0), QUICK)
    moved = {name for name, weight in made.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("modules_to_save" in name for name in moved)
    assert evaluate_reward_model(made, judged_texts(40, 4, 1)).accuracy > 0.8
    if kind == "bert":  # its pooler is not part of a masked language model, so it starts at random and must be kept
        assert any("pooler" in name for name in moved)


def test_full_adapter_and_merged_saves_score_alike_in_a_fresh_process(save_base, judged_texts, tmp_path) -> None:
    expected, folders = [], []
    for kind in KINDS:
        made = trained(kind, save_base, judged_texts, tmp_path)
        folders.append(made.save(tmp_path / f"{kind}-adapter"))
        expected.append(exact(made))
        unmerged = made.score(PROMPTS, RESPONSES).value
        folders.append(made.merge().save(tmp_path / f"{kind}-merged"))
        expected.append(exact(made))
        np.testing.assert_allclose(made.score(PROMPTS, RESPONSES).value, unmerged, atol=1e-4)
        full = PreferenceRewardModel.from_base(tmp_path / f"{kind}-lm", device="cpu")
        full.fit(judged_texts(40, 4, 0), RewardTrainingConfig(epochs=2, learning_rate=1e-3))
        folders.append(full.save(tmp_path / f"{kind}-full"))
        expected.append(exact(full))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, json.dumps([PROMPTS, RESPONSES]), *map(str, folders)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert dict(zip(map(str, folders), found, strict=True)) == dict(zip(map(str, folders), expected, strict=True))
    assert len({tuple(row) for row in expected}) == len(expected)
    assert not (tmp_path / "gpt2-adapter" / "model.safetensors").exists()
    assert (tmp_path / "gpt2-merged" / "model.safetensors").is_file()


def test_a_merged_model_can_be_fitted_on(save_base, judged_texts, tmp_path) -> None:
    made = trained("llama", save_base, judged_texts, tmp_path).merge()
    before = made.model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    made.fit(judged_texts(40, 4, 2), QUICK)
    assert not torch.equal(made.model.model.layers[0].self_attn.q_proj.weight, before)
    assert evaluate_reward_model(made, judged_texts(40, 4, 1)).accuracy > 0.8


def test_a_loaded_adapter_can_be_fitted_on(save_base, judged_texts, tmp_path) -> None:
    made = PreferenceRewardModel.from_base(save_base("llama", tmp_path / "lm"), lora=LORA, device="cpu")
    again = PreferenceRewardModel.load(made.save(tmp_path / "rm"), device="cpu")
    made.fit(judged_texts(40, 4, 0), QUICK)
    again.fit(judged_texts(40, 4, 0), QUICK)
    assert exact(again) == exact(made)
    again.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="must have a weight that may change"):
        again.fit(judged_texts(40, 4, 0), QUICK)


def test_the_generators_of_others_are_left_alone(save_base, tmp_path) -> None:
    base, state = save_base("llama", tmp_path / "lm"), torch.get_rng_state()
    folder = PreferenceRewardModel.from_base(base, lora=LORA, seed=3, device="cpu").save(tmp_path / "rm")
    load_reward_model(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_another_base_or_scale_is_another_run(save_base, judged_texts, tmp_path) -> None:
    config = RewardTrainingConfig(checkpoint_every_steps=1, learning_rate=1e-3)
    base = save_base("llama", tmp_path / "lm")
    rankings = judged_texts(40, 3, 0)

    def run(**settings) -> None:
        model = PreferenceRewardModel.from_base(base, device="cpu", **settings)
        model.fit(rankings, config, checkpoint_dir=tmp_path / "checkpoints")

    run(lora=LORA)
    run(lora=LORA)  # the same one
    for other in ({"lora": LoraSettings(rank=4, alpha=80)}, {"lora": None}, {"lora": LORA, "seed": 1}):
        with pytest.raises(ConfigError, match=r"these differ: (adapter|input start_weights)"):
            run(**other)
    _another_base(base)
    with pytest.raises(ConfigError, match="these differ: input start_weights"):
        run(lora=LORA)


def test_switching_an_adapter_off_is_seen(save_base, judged_texts, tmp_path) -> None:
    made = trained("llama", save_base, judged_texts, tmp_path)
    on = exact(made)
    with made.adapter.peft.disable_adapter():
        assert exact(made) != on
    assert exact(made) == on


def test_a_base_in_bfloat16_keeps_its_head_in_float32(save_base, judged_texts, tmp_path) -> None:
    made = trained("llama", save_base, judged_texts, tmp_path, dtype="bfloat16")
    assert {weight.dtype for weight in made.model.model.layers[0].mlp.gate_proj.base_layer.parameters()} == {
        torch.bfloat16
    }
    head = made.model.score.modules_to_save["default"].weight
    assert head.dtype == torch.float32
    folder = made.save(tmp_path / "rm")
    again = PreferenceRewardModel.load(folder, dtype="bfloat16", device="cpu")
    assert exact(again) == exact(made)
    # The base's fingerprint does not depend on the type it is loaded in.
    in_float = PreferenceRewardModel.load(folder, device="cpu")
    np.testing.assert_allclose(
        in_float.score(PROMPTS, RESPONSES).value, made.score(PROMPTS, RESPONSES).value, rtol=0.1, atol=0.1
    )


def test_a_full_model_loads_in_bfloat16(reward_of, tmp_path) -> None:
    made = reward_of("llama")
    low = PreferenceRewardModel.load(made.save(tmp_path / "rm"), dtype="bfloat16", device="cpu")
    assert next(low.model.parameters()).dtype == torch.bfloat16
    np.testing.assert_allclose(
        low.score(PROMPTS, RESPONSES).value, made.score(PROMPTS, RESPONSES).value, rtol=0.1, atol=0.05
    )


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder, base: (folder / "adapter_model.safetensors").unlink(), "must hold adapter_model.safetensors"),
        (lambda folder, base: (folder / "adapter_config.json").unlink(), "must hold adapter_config.json"),
        (lambda folder, base: _cut(folder / "adapter_model.safetensors"), "has changed since"),
        (lambda folder, base: (folder / "adapter_config.json").write_text("{"), "has changed since"),
        (lambda folder, base: _flip_one_byte(folder / "adapter_model.safetensors"), "has changed since"),
        (lambda folder, base: _without_head(folder), "must hold every weight of .*, and lacks .*score"),
        (lambda folder, base: _another_base(base), "must be loaded on the base it was trained on"),
        (lambda folder, base: _nameless(folder), "must name the base of its adapter, got None"),
        (lambda folder, base: _pickled(base), "must hold whole weights"),
    ],
)
def test_a_damaged_adapter_is_refused(damage, text: str, save_base, judged_texts, tmp_path) -> None:
    made = PreferenceRewardModel.from_base(save_base("llama", tmp_path / "lm"), lora=LORA, device="cpu")
    folder = made.save(tmp_path / "rm")
    damage(folder, tmp_path / "lm")
    with pytest.raises((ArtifactError, ModelLoadError), match=text):
        load_reward_model(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def _without_head(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: w for name, w in load_file(path).items() if "score" not in name}, path)
    write_record(folder, json.loads((folder / "lm_gym_reward_model.json").read_text()))


def _nameless(folder: Path) -> None:
    record = json.loads((folder / "lm_gym_reward_model.json").read_text())
    write_record(folder, record | {"adapter": {"base": None, "base_sha256": "x"}})


def _pickled(base: Path) -> None:
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()


def _another_base(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name] = weights[name] * 1.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def test_what_cannot_work_is_refused(tiny_model, tokenizer_for, save_base, tmp_path) -> None:
    for bad in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"target_modules": ()}):
        with pytest.raises(ConfigError, match=f"LoraSettings.{next(iter(bad))}: must be"):
            LoraSettings(**bad)
    loaded = PreferenceRewardModel.from_base(tiny_model("llama"), tokenizer_for("llama"), lora=LORA, device="cpu")
    with pytest.raises(ConfigError, match="this base came as an object"):
        loaded.save(tmp_path / "rm")
    assert not (tmp_path / "rm").exists()
    loaded.merge().save(tmp_path / "rm")
    base = save_base("llama", tmp_path / "lm")
    with pytest.raises(ConfigError, match="must name layers of the model, got 'nothing'"):
        PreferenceRewardModel.from_base(base, lora=LoraSettings(target_modules="nothing"))


def test_the_base_is_never_overwritten_and_may_be_moved(save_base, judged_texts, tmp_path) -> None:
    base = save_base("llama", tmp_path / "base" / "lm")
    made = PreferenceRewardModel.from_base(base, lora=LORA, device="cpu")
    before = {path: path.read_bytes() for path in base.iterdir()}
    for folder in (base, base.parent):
        with pytest.raises(ConfigError, match="must not take the place of the base of its adapter"):
            made.save(folder)
        with pytest.raises(ConfigError, match="output_dir: must not take the place of the base of its adapter"):
            PreferenceRewardModel.train([], base, output_dir=folder, lora=LORA, device="cpu")
    assert {path: path.read_bytes() for path in base.iterdir()} == before
    folder, scores = made.save(tmp_path / "adapter"), exact(made)
    base.rename(tmp_path / "moved")
    with pytest.raises(ArtifactError, match=rf"its base must be where it was, {base}, .* into lm_gym_base\.json"):
        load_reward_model(folder)
    record = folder / "lm_gym_base.json"
    record.write_text(record.read_text().replace(str(base), str(tmp_path / "moved")))
    again = load_reward_model(folder)
    assert exact(again) == scores
    assert again.adapter.base == str(tmp_path / "moved")
    again.save(tmp_path / "again")
    record.unlink()
    with pytest.raises(ArtifactError, match="its base must be where it was"):
        load_reward_model(folder)
    assert exact(load_reward_model(tmp_path / "again")) == scores
