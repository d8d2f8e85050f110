"""Cross-encoders: the library's own scores, learned from judgements, saved whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import load_reward_model
from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError
from lm_gym.reward_models import (
    CrossEncoderRewardModel,
    PreferenceRewardModel,
    RewardTrainingConfig,
    evaluate_reward_model,
)
from lm_gym.testing import check_reward_model

PROMPTS = ["write a review :", "one", "two three", "the film was good"]
TEXTS = ["good film", "the film was very dull", "", "bad bad and awful film . good"]


def pair_tokenizer(tokenizer: Any) -> Any:
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    names = ("unk", "pad", "cls", "sep", "mask")
    return type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": getattr(tokenizer, f"{name}_token") for name in names},
    )


@pytest.fixture
def checkpoint(tiny_model: Any, tokenizer_for: Any, tmp_path: Path) -> Path:
    from sentence_transformers import CrossEncoder

    tiny_model("bert").save_pretrained(tmp_path / "base")
    pair_tokenizer(tokenizer_for("bert")).save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    encoder = CrossEncoder(str(tmp_path / "base"), num_labels=1, device="cpu", max_length=16)
    encoder.save(str(tmp_path / "ce"))
    return tmp_path / "ce"


def test_a_checkpoint_scores_as_the_library_does_without_its_sigmoid(checkpoint: Path) -> None:
    from sentence_transformers import CrossEncoder

    library = CrossEncoder(str(checkpoint), device="cpu")
    pairs = list(zip(PROMPTS, TEXTS, strict=True))
    raw = library.predict(pairs, activation_fn=torch.nn.Identity())
    model = CrossEncoderRewardModel.load(checkpoint, device="cpu")
    np.testing.assert_allclose(model.score(PROMPTS, TEXTS).value, raw, atol=1e-5)
    squeezed = library.predict(pairs)
    assert not np.allclose(squeezed, raw, atol=1e-2)
    # Token types count: without them another score comes out.
    model._scorer._separator_id = None
    assert not np.allclose(model.score(PROMPTS, TEXTS).value, raw, atol=1e-4)


def test_a_checkpoint_without_a_head_or_a_record_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"must hold a trained head, and holds \['BertForMaskedLM'\]"):
        CrossEncoderRewardModel.load(tmp_path / "base", device="cpu")
    saved = CrossEncoderRewardModel.load(checkpoint, device="cpu").save(tmp_path / "saved")
    (saved / "lm_gym_reward_model.json").unlink()
    with pytest.raises(ArtifactError, match=r"must have the lm_gym_reward_model\.json it was saved with"):
        CrossEncoderRewardModel.load(saved, device="cpu")


def test_a_pair_that_is_too_long_keeps_the_end_of_its_response(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = CrossEncoderRewardModel.load(checkpoint, device="cpu")
    assert model.max_length == 16
    prompt, response = "one two three four five six seven eight", "the film was very good . not bad"
    (ids,) = model.encoder.encode([prompt], [response])
    assert len(ids) == 16
    assert model.tokenizer.decode(ids) == f"[CLS] four five six seven eight [SEP] {response} [SEP]"
    (ids,) = model.encoder.encode([prompt], ["bad " * 40 + "good"])
    assert model.tokenizer.decode(ids) == "[CLS] [SEP] " + "bad " * 12 + "good [SEP]"
    assert "1 of 1 texts were longer than max_length=16" in caplog.text


def test_it_learns_and_comes_back(tiny_model: Any, tokenizer_for: Any, judged_texts: Any, tmp_path: Path) -> None:
    tokenizer = pair_tokenizer(tokenizer_for("bert"))
    model = CrossEncoderRewardModel.train(
        judged_texts(200, 4, 0),
        tiny_model("bert"),
        RewardTrainingConfig(epochs=3, learning_rate=3e-3),
        tokenizer=tokenizer,
        output_dir=tmp_path / "rm",
        device="cpu",
    )
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > 0.85
    again = load_reward_model(tmp_path / "rm")
    assert isinstance(again, CrossEncoderRewardModel)
    np.testing.assert_allclose(again.score(PROMPTS, TEXTS).value, model.score(PROMPTS, TEXTS).value, atol=1e-6)
    check_reward_model(model)
    with pytest.raises(OSError, match="must say kind 'preference'"):
        PreferenceRewardModel.load(tmp_path / "rm")


def test_bad_handles_are_named(tmp_path: Path, tiny_model: Any) -> None:
    with pytest.raises(ModelLoadError, match="cross-encoder"):
        CrossEncoderRewardModel.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="reads pairs"):
        CrossEncoderRewardModel.from_base(tiny_model("bert"), template="{prompt}{response}")
