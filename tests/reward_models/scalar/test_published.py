"""Reward models that others saved, and those that lie on the hub (an offline cache stands for it here)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lm_gym import load_reward_model
from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError
from lm_gym.reward_models import CrossEncoderRewardModel, EmbeddingRewardModel, PreferenceRewardModel, SentenceFeatures
from lm_gym.reward_models.saving.record import write_record
from lm_gym.reward_models.scalar.heads import classifier_from
from lm_gym.testing import check_reward_model
from lm_gym.tools.console.quiet import quiet_transformers

PROMPTS = ["write a review :", "one two"]
RESPONSES = ["good film", "the film was very dull"]
CHAT = "{% for m in messages %}[CLS] {{ m['role'] }} : {{ m['content'] }} <eos> {% endfor %}"


@pytest.fixture
def published(tiny_model: Any, tokenizer_for: Any, tmp_path: Path) -> Path:
    """A decoder with one label, saved with transformers alone."""
    model, _ = classifier_from(tiny_model("llama"), dtype="float32", seed=3)
    with quiet_transformers(only_errors=True):
        model.save_pretrained(tmp_path / "published")
    tokenizer_for("llama").save_pretrained(tmp_path / "published")
    return tmp_path / "published"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts folders where the hub's cache would have them; there is no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(hub_id: str, folder: Path) -> None:
        place = cache / f"models--{hub_id.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / "abc")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc")

    return put


def test_a_model_that_others_saved_scores_as_their_class_does(published: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = load_reward_model(published)
    assert isinstance(model, PreferenceRewardModel)
    assert model.template == "{prompt}{response}"
    plain = AutoModelForSequenceClassification.from_pretrained(published).eval()
    tokenizer = AutoTokenizer.from_pretrained(published)
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        with torch.inference_mode():
            expected.append(plain(**tokenizer(f"{prompt} {response}", return_tensors="pt")).logits.item())
    np.testing.assert_allclose(model.score(PROMPTS, RESPONSES).value, expected, atol=1e-5)
    check_reward_model(model)


def test_a_chat_template_is_used_and_kept(published: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(published)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(published)
    model = PreferenceRewardModel.from_checkpoint(published, device="cpu")
    assert model.template == "chat"
    ids = model.encoder.encode(["one"], ["good film"])[0]
    assert tokenizer.decode(ids) == "[CLS] <unk> : one <eos> [CLS] <unk> : good film <eos>"
    again = load_reward_model(model.save(tmp_path / "saved"))
    np.testing.assert_array_equal(again.score(PROMPTS, RESPONSES).value, model.score(PROMPTS, RESPONSES).value)
    short = PreferenceRewardModel.from_checkpoint(published, max_length=4, device="cpu")
    assert tokenizer.decode(short.encoder.encode(["one"], ["good film"])[0]) == ": good film <eos>"
    assert short.count_cut(["one"], ["good film"]) == 1
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="needs a tokenizer with a chat template"):
        PreferenceRewardModel(model.model, tokenizer, template="chat")


def test_a_cross_encoder_is_known_by_its_config(tiny_model: Any, tokenizer_for: Any, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    base, _ = classifier_from(tiny_model("bert"), dtype="float32", seed=3)
    with quiet_transformers(only_errors=True):
        base.save_pretrained(tmp_path / "base")
        tokenizer_for("bert").save_pretrained(tmp_path / "base")
        CrossEncoder(str(tmp_path / "base"), device="cpu").save_pretrained(str(tmp_path / "ce"))
    assert isinstance(load_reward_model(tmp_path / "ce"), CrossEncoderRewardModel)
    config = tmp_path / "base" / "config.json"  # as sentence-transformers marked them before its version 6
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sentence_transformers": {"version": "5.0.0"}}))
    assert isinstance(load_reward_model(tmp_path / "base"), CrossEncoderRewardModel)


def test_a_hub_id_leads_to_a_saved_model(
    reward_of: Any, published: Path, hub: Any, save_base: Any, judged_texts: Any, tmp_path: Path
) -> None:
    saved = reward_of("gpt2", name="critic")
    hub("someone/critic", saved.save(tmp_path / "critic"))
    found = load_reward_model("someone/critic")
    assert getattr(found, "name", None) == "critic"
    np.testing.assert_array_equal(found.score(PROMPTS, RESPONSES).value, saved.score(PROMPTS, RESPONSES).value)
    hub("someone/published", published)
    assert isinstance(load_reward_model("someone/published"), PreferenceRewardModel)
    with pytest.raises(ModelLoadError, match="'someone/nothing': there is no such folder, and the hub has no such"):
        load_reward_model("someone/nothing")


def test_an_embedding_model_is_fetched_with_its_encoder(
    hub: Any, save_base: Any, judged_texts: Any, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = Transformer(str(save_base("bert", tmp_path / "bert")), max_seq_length=48)
    encoder = SentenceTransformer(modules=[base, Pooling(base.get_embedding_dimension())], device="cpu")
    made = EmbeddingRewardModel.train(judged_texts(20, 3, 0), SentenceFeatures(encoder, source="tiny"))
    hub("someone/embedding", made.save(tmp_path / "made"))
    np.testing.assert_allclose(
        load_reward_model("someone/embedding").score(PROMPTS, RESPONSES).value,
        made.score(PROMPTS, RESPONSES).value,
        atol=1e-6,
    )


def test_a_folder_that_is_no_whole_checkpoint_is_refused(published: Path, reward_of: Any, tmp_path: Path) -> None:
    ours = reward_of("gpt2").save(tmp_path / "ours")
    (ours / "lm_gym_reward_model.json").unlink()
    with pytest.raises(ArtifactError, match=r"must have the lm_gym_reward_model\.json it was saved with"):
        load_reward_model(ours)
    weights = published / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="must hold a whole checkpoint"):
        load_reward_model(published)
    weights.rename(published / "pytorch_model.bin")  # a pickle is never read
    with pytest.raises(ArtifactError, match="must hold a whole checkpoint"):
        load_reward_model(published)


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])


def _set(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("damage", "of_a_base", "of_a_model"),
    [
        (_cut, "must hold whole weights", "must hold a whole checkpoint"),
        (lambda folder: _set(folder, hidden_size=64), "must hold whole weights", "must hold a whole checkpoint"),
        (lambda folder: _set(folder, hidden_size="wide"), "must be a folder, a GGUF", "must hold a whole checkpoint"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_its_folder(
    damage: Any, of_a_base: str, of_a_model: str, published: Path
) -> None:
    damage(published)
    for load, text in (
        (PreferenceRewardModel.from_base, of_a_base),
        (PreferenceRewardModel.from_checkpoint, of_a_model),
    ):
        with pytest.raises((ArtifactError, ModelLoadError), match=text) as caught:
            load(published)
        assert str(published) in str(caught.value)


def test_a_base_without_a_tokenizer_is_refused(save_base: Any, tmp_path: Path) -> None:
    base = save_base("gpt2", tmp_path / "base")
    for path in base.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="must lie beside the model, and there is none"):
        PreferenceRewardModel.from_base(base)  # transformers makes up an empty one, which reads nothing


def test_a_tokenizer_of_ones_own_comes_back_whatever_the_model_is(tokenizer_for: Any, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    made = PreferenceRewardModel.from_base(Qwen2ForCausalLM(config), tokenizer_for("gpt2"), device="cpu")
    folder = made.save(tmp_path / "rm")
    again = load_reward_model(folder)
    np.testing.assert_array_equal(again.score(PROMPTS, RESPONSES).value, made.score(PROMPTS, RESPONSES).value)
    record = json.loads((folder / "lm_gym_reward_model.json").read_text())
    record["tokenizer"]["probe"][0] += 1
    write_record(folder, record)
    with pytest.raises(ArtifactError, match="must read texts as it did when it was saved"):
        load_reward_model(folder)
