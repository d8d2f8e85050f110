from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ArtifactError, ConfigError, RewardModelError
from lm_gym.reward_models import CachedRewardModel, PreferenceRewardModel
from lm_gym.scoring.handles import load_reward_model
from lm_gym.scoring.protocol import checked_scores

PROMPTS = ["the film was"] * 4 + ["the movie was very", "one two three four five six seven"]
RESPONSES = ["good", "very bad", "good <eos>", "good", "dull <eos> <eos>", "a brilliant film and a great review"]
KINDS = ["gpt2", "llama", "bert"]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_the_batch(kind: str, reward_of) -> None:
    reward_model = reward_of(kind)
    together = checked_scores(reward_model, PROMPTS, RESPONSES)
    alone = [reward_model.score([p], [r]).value[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(together.value, alone, rtol=1e-4, atol=1e-5)
    assert together.value[0] == together.value[3]
    assert together.valid.all()
    backwards = reward_model.score(PROMPTS[::-1], RESPONSES[::-1])
    np.testing.assert_array_equal(backwards.value[::-1], together.value)


def test_equal_rows_are_scored_once(reward_of) -> None:
    reward_model = reward_of("gpt2")
    seen = []
    reward_model.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    reward_model.score(["one"] * 50, ["good", "bad"] * 25)
    assert seen == [2]


def test_nothing_to_read_is_an_abstention_and_no_rows_are_no_scores(reward_of) -> None:
    reward_model = reward_of("gpt2")
    scores = reward_model.score(["", "one"], ["", ""])
    assert scores.valid.tolist() == [False, True]
    assert scores.value[0] == 0.0
    assert len(reward_model.score([], [])) == 0
    with pytest.raises(RewardModelError, match="one prompt per response, got 2 and 1"):
        reward_model.score(["a", "b"], ["c"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_class_scores_a_single_text_alike(kind: str, reward_of, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    reward_model = reward_of(kind)
    folder = reward_model.save(tmp_path / "rm")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        with torch.inference_mode():
            plain.append(model(**tokenizer(f"{prompt} {response}", return_tensors="pt")).logits[0, 0].item())
    np.testing.assert_allclose(reward_model.score(PROMPTS, RESPONSES).value, plain, rtol=1e-4, atol=1e-5)


def test_the_plain_class_refuses_a_batch_rather_than_misreading_it(reward_of, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification

    reward_model = reward_of("gpt2")
    reward_model.model.config.pad_token_id = 0
    model = AutoModelForSequenceClassification.from_pretrained(reward_model.save(tmp_path / "rm"))
    assert reward_model.model.config.pad_token_id == 0
    with pytest.raises(ValueError, match="no padding token"):
        model(torch.zeros((2, 3), dtype=torch.long))


def test_a_genuine_pad_token_serves_plain_batches(tiny_model, tokenizer_for, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = tokenizer_for("llama")
    tokenizer.pad_token = "<pad>"
    reward_model = PreferenceRewardModel.from_base(tiny_model("llama"), tokenizer, device="cpu")
    folder = reward_model.save(tmp_path / "rm")
    model, plain = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = plain([f"{p} {r}" for p, r in zip(PROMPTS, RESPONSES, strict=True)], padding=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model.eval()(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(reward_model.score(PROMPTS, RESPONSES).value, scores, rtol=1e-4, atol=1e-5)


FRESH = """
import json, sys, torch
torch.set_num_threads(1)
from lm_gym.scoring.handles import load_reward_model
prompts, responses = json.loads(sys.argv[1])
for folder in sys.argv[2:]:
    print(json.dumps([float(value).hex() for value in load_reward_model(folder).score(prompts, responses).value]))
"""


def test_a_fresh_process_gives_identical_scores(reward_of, judged_texts, tmp_path) -> None:
    from lm_gym.reward_models import RewardTrainingConfig

    expected = []
    for kind in KINDS:
        reward_model = reward_of(kind, name="critic", max_length=40)
        reward_model.fit(judged_texts(16, 3, 0), RewardTrainingConfig(learning_rate=1e-3, epochs=3))
        reward_model.save(tmp_path / kind)
        expected.append([float(value).hex() for value in reward_model.score(PROMPTS, RESPONSES).value])
    folders = [str(tmp_path / kind) for kind in KINDS]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, json.dumps([PROMPTS, RESPONSES]), *folders],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert [json.loads(line) for line in run.stdout.splitlines()] == expected


def test_everything_comes_back(reward_of, tmp_path) -> None:
    reward_model = reward_of("gpt2", name="critic", max_length=40, template="say {prompt} : {response}")
    reward_model.fit_normalizer(PROMPTS, RESPONSES, fitted_on="six texts")
    reward_model.training = {"updates": 3}
    again = load_reward_model(reward_model.save(tmp_path / "rm"))
    assert isinstance(again, PreferenceRewardModel)
    assert (again.name, again.max_length, again.template) == ("critic", 40, "say {prompt} : {response}")
    assert again.normalizer == reward_model.normalizer
    assert again.training == {"updates": 3}
    reward_model.save(tmp_path / "rm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rm"]


def test_the_normalizer_is_fitted_and_never_applied(reward_of) -> None:
    reward_model = reward_of("gpt2")
    raw = reward_model.score(PROMPTS, RESPONSES).value
    normalizer = reward_model.fit_normalizer(PROMPTS, RESPONSES, fitted_on="six texts")
    assert isinstance(normalizer, ScoreNormalizer)
    scaled = normalizer.gain * raw + normalizer.bias
    assert scaled.mean() == pytest.approx(0, abs=1e-5)
    assert scaled.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(reward_model.score(PROMPTS, RESPONSES).value, raw)
    with pytest.raises(RewardModelError, match="at least 2 different scores"):
        reward_model.fit_normalizer(["one"] * 3, ["good"] * 3, fitted_on="one text")


def _cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_one_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def _reword(path) -> None:
    path.write_text(path.read_text().replace('"good"', '"goof"'))


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("lm_gym_reward_model.json", os.remove, "must be a folder with lm_gym_reward_model.json"),
        ("lm_gym_reward_model.json", _cut, "must be whole JSON"),
        ("model.safetensors", os.remove, "must hold model.safetensors"),
        ("model.safetensors", _cut, "model.safetensors: must have the .* and it has changed since"),
        ("tokenizer.json", os.remove, "must hold tokenizer.json"),
        ("tokenizer.json", _reword, "tokenizer.json: must have the .* and it has changed since"),
        ("model.safetensors", _flip_one_byte, "model.safetensors: must have the .* and it has changed since"),
        ("config.json", os.remove, "must hold config.json"),
        ("config.json", _cut, "config.json: must have the .* and it has changed since"),
    ],
)
def test_a_damaged_folder_is_refused(name: str, damage, text: str, reward_of, tmp_path) -> None:
    folder = reward_of("gpt2").save(tmp_path / "rm")
    damage(folder / name)
    with pytest.raises(ArtifactError, match=text):
        PreferenceRewardModel.load(folder)


def test_a_file_may_be_changed_on_purpose(reward_of, tmp_path, caplog) -> None:
    folder = reward_of("gpt2").save(tmp_path / "rm")
    (folder / "README.md").write_text("My words.")  # no score depends on it
    (folder / "notes.txt").write_text("Mine.")
    PreferenceRewardModel.load(folder)
    assert not caplog.records
    _flip_one_byte(folder / "model.safetensors")
    (folder / "lm_gym_manifest.json").unlink()
    PreferenceRewardModel.load(folder)
    assert "its files are taken unchecked" in caplog.text


def test_another_kind_or_format_is_refused(reward_of, tmp_path) -> None:
    folder = reward_of("gpt2").save(tmp_path / "rm")
    record = json.loads((folder / "lm_gym_reward_model.json").read_text())
    for change, text in (({"kind": "oracle"}, "kind 'preference'"), ({"format": 1}, "format 2")):
        (folder / "lm_gym_reward_model.json").write_text(json.dumps(record | change))
        with pytest.raises(ArtifactError, match=text):
            PreferenceRewardModel.load(folder)


def test_a_save_that_fails_leaves_the_old_folder(reward_of, tmp_path, monkeypatch) -> None:
    reward_model = reward_of("gpt2")
    folder = reward_model.save(tmp_path / "rm")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError("disk full")

    with torch.no_grad():
        reward_model.model.score.weight.zero_()
    monkeypatch.setattr(reward_model.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="disk full"):
        reward_model.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["rm"]


def test_settings_that_cannot_work_are_refused(tiny_model, reward_of, tokenizer_for) -> None:
    with pytest.raises(ConfigError, match="at most the 64 tokens of its model, got 65"):
        reward_of("gpt2", max_length=65)
    with pytest.raises(ConfigError, match="comes with tokenizer="):
        PreferenceRewardModel.from_base(tiny_model("gpt2"))
    two = reward_of("gpt2").model
    two.config.num_labels = 2
    with pytest.raises(ConfigError, match="must have one output"):
        PreferenceRewardModel(two, tokenizer_for("gpt2"))


@pytest.mark.parametrize("max_length", [64, 45])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_score_is_the_same_to_the_bit_in_any_batch(kind: str, max_length: int, reward_of: Any) -> None:
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "one", "two", "three"]
    responses = sorted({" ".join(rng.choice(words, size=rng.integers(1, 50))) for _ in range(40)})
    prompts = ["one"] * len(responses)

    model = reward_of(kind, seed=3, max_length=max_length)

    def scores(*parts: slice) -> list[float]:
        return [float(v) for part in parts for v in model.score(prompts[part], responses[part]).value]

    whole = scores(slice(None))
    assert scores(*(slice(row, row + 1) for row in range(len(responses)))) == whole
    assert scores(slice(0, 3), slice(3, 5), slice(5, 12), slice(12, None)) == whole
    warm = CachedRewardModel(model)
    warm.score(prompts[::3], responses[::3])  # the rest is then scored without these
    assert warm.score(prompts, responses).value.tolist() == whole
