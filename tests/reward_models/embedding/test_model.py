"""A head on a frozen encoder: it learns every kind of judgement, and comes back the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lm_gym import load_reward_model
from lm_gym.errors import ArtifactError, ConfigError, DataError, DivergedError, ModelLoadError, RewardModelError
from lm_gym.reward_models import (
    Choice,
    EmbeddingRewardModel,
    EmbeddingTrainingConfig,
    Judgement,
    Rating,
    SentenceFeatures,
    Thumb,
    Value,
    Vote,
    Votes,
    evaluate_reward_model,
)
from lm_gym.reward_models.saving.record import write_record
from lm_gym.testing import check_reward_model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, save_base: Callable[..., Path]) -> Path:
    """A tiny random sentence encoder on disk."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = tmp_path_factory.mktemp("encoder")
    base = Transformer(str(save_base("bert", folder / "bert")), max_seq_length=48)
    SentenceTransformer(modules=[base, Pooling(base.get_embedding_dimension())], device="cpu").save(
        str(folder / "sentence"), create_model_card=False
    )
    return folder / "sentence"


@pytest.fixture(scope="module")
def loaded(encoder: Path) -> SentenceFeatures:
    return SentenceFeatures.from_pretrained(encoder, device="cpu")


SOFT = EmbeddingTrainingConfig(l2=0.01)


def test_it_ranks_held_out_texts(loaded: SentenceFeatures, judged_texts: Callable[..., Any]) -> None:
    model = EmbeddingRewardModel.train(judged_texts(150, 4, 0), loaded, SOFT)
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > 0.9
    assert model.training["targets"]["rankings"] == 150


def judgements_of(kind: str, texts: list[str], truth: np.ndarray, rng: np.random.Generator) -> list[Judgement]:
    def sigmoid(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    said = []
    for _ in range(2000):
        a, b = rng.choice(len(texts), 2, replace=False)
        up = bool(rng.random() < sigmoid(truth[a]))
        verdicts: dict[str, tuple[tuple[str, ...], Any]] = {
            "choice": ((texts[a], texts[b]), Choice("a" if rng.random() < sigmoid(truth[a] - truth[b]) else "b")),
            "votes": (
                (texts[a], texts[b]),
                Votes(tuple(Vote("a" if rng.random() < sigmoid(truth[a] - truth[b]) else "b") for _ in range(5))),
            ),
            "thumb": ((texts[a],), Thumb(up)),
            "rating": ((texts[a],), Rating(int(np.clip(round(2.5 + truth[a] + rng.normal(0, 0.5)), 0, 5)))),
            "value": ((texts[a],), Value(float(100 + 10 * truth[a] + rng.normal(0, 5)))),
        }
        said.append(Judgement.of("one", *verdicts[kind]))
    return said


@pytest.mark.parametrize("kind", ["choice", "votes", "thumb", "rating", "value", "mix"])
def test_every_kind_teaches_the_same_scalar(
    kind: str, loaded: SentenceFeatures, judged_texts: Callable[..., Any], word_score: Callable[..., list[float]]
) -> None:
    rng = np.random.default_rng(0)
    texts = sorted({text for one in judged_texts(60, 4, 0) for text in one.texts})
    truth = np.array(word_score([], texts)) / 2
    kinds = ["choice", "votes", "thumb", "rating", "value"] if kind == "mix" else [kind]
    said = [one for each in kinds for one in judgements_of(each, texts, truth, rng)]
    model = EmbeddingRewardModel.train(said, loaded, EmbeddingTrainingConfig(l2=0.003))
    scores = model.score(["one"] * len(texts), texts).value
    assert spearmanr(scores, truth).statistic > 0.9
    if kind in ("value", "mix"):
        assert model.links["value_center"] == pytest.approx(100, abs=6)


def test_a_hidden_layer_and_the_prompt_can_be_read(loaded: SentenceFeatures, judged_texts: Callable[..., Any]) -> None:
    config = EmbeddingTrainingConfig(l2=0.001, hidden=8, reads="prompt_and_response")
    model = EmbeddingRewardModel.train(judged_texts(100, 4, 0), loaded, config)
    assert evaluate_reward_model(model, judged_texts(50, 4, 1)).accuracy > 0.85
    assert model.score(["one"], ["good"]).value != model.score(["film two three"], ["good"]).value


def test_what_is_said_of_other_topics_can_hang_on_the_prompt(loaded: SentenceFeatures) -> None:
    """The same two answers, judged one way under one prompt and the other way under another."""
    said = [Judgement.pair("good film", "good", "bad"), Judgement.pair("bad film", "bad", "good")] * 10
    config = EmbeddingTrainingConfig(l2=1e-4)
    blind = EmbeddingRewardModel.train(said, loaded, config)
    assert evaluate_reward_model(blind, said).accuracy == pytest.approx(0.5)
    seeing = EmbeddingRewardModel.train(said, loaded, replace(config, reads="interaction"))
    assert evaluate_reward_model(seeing, said).accuracy == 1.0


def test_surface_features_come_back_with_the_model_and_belong_to_its_identity(
    loaded: SentenceFeatures, judged_texts: Callable[..., Any], tmp_path: Path
) -> None:
    lengths = [Judgement.pair("p", "good " * (n + 1), "good " * n) for n in range(1, 20)]
    config = replace(SOFT, surface=True, reads="interaction")
    model = EmbeddingRewardModel.train(lengths, loaded, config)
    assert evaluate_reward_model(model, lengths).accuracy > 0.9
    check_reward_model(model)
    back: Any = load_reward_model(model.save(tmp_path / "rm"))
    texts = ["good film", "", "bad bad film!"]
    np.testing.assert_allclose(back.score(["p"] * 3, texts).value, model.score(["p"] * 3, texts).value, atol=1e-5)
    assert back.identity() == model.identity()
    assert "surface" in model.identity()
    assert "44 surface features: log characters" in (tmp_path / "rm" / "README.md").read_text(encoding="utf-8")
    record = json.loads((tmp_path / "rm" / "lm_gym_reward_model.json").read_text(encoding="utf-8"))
    write_record(tmp_path / "rm", record | {"surface": ["log letters", *record["surface"][1:]]})
    with pytest.raises(ArtifactError, match="must read the surface features of this version"):
        load_reward_model(tmp_path / "rm")


def test_features_are_the_three_poolings(loaded: SentenceFeatures) -> None:
    (states,) = loaded.encoder.encode(["the film was good"], output_value="token_embeddings")
    got = loaded(["the film was good"])[0]
    expected = torch.cat([states.mean(0), states.max(0).values, states.sum(0) / len(states) ** 0.5])
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


def test_a_text_without_a_token_has_features_too(loaded: SentenceFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.abs(loaded([""])).sum() > 0  # this tokenizer puts special tokens around it
    monkeypatch.setattr(SentenceFeatures, "_blank_has_tokens", False)
    got = loaded(["", "good film", " "])
    assert np.abs(got).sum(axis=1).tolist() == [0, pytest.approx(float(np.abs(loaded(["good film"])).sum())), 0]
    assert loaded([" "]).shape == got[:1].shape


def test_of_a_text_that_is_too_long_the_end_is_read(loaded: SentenceFeatures, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded.max_length == 48
    long = "good " * 20 + "bad " * 40 + "great film"
    with caplog.at_level("WARNING"):
        features = loaded([long, "good film"])
    end = " ".join(long.split()[-46:])  # [CLS] and [SEP] take two
    np.testing.assert_allclose(features, loaded([end, "good film"]), atol=1e-6)
    assert "1 of 2 texts were longer than max_length=48" in caplog.text
    assert loaded.count_cut([long, end, "good film"]) == 1


@pytest.mark.parametrize(("reads", "texts", "cut", "rows"), [("response", 3, 1, 1), ("interaction", 5, 2, 2)])
def test_prompts_that_are_too_long_are_counted_where_they_are_embedded(
    loaded: SentenceFeatures, reads: Any, texts: int, cut: int, rows: int
) -> None:
    long = "good film " * 40
    judgements = [Judgement.pair(long, "good", "bad"), Judgement.pair("one", "good", long + "bad")]
    config = EmbeddingTrainingConfig(reads=reads, max_iterations=1, progress=False)
    model = EmbeddingRewardModel.train(judgements, loaded, config)
    assert (model.training["texts"], model.training["texts_cut"]) == (texts, cut)
    assert model.count_cut([long, "one", "one", "two"], ["good", "good", long, "bad"]) == rows


def test_saved_and_loaded_in_another_process_it_scores_the_same(
    loaded: SentenceFeatures, judged_texts: Callable[..., Any], tmp_path: Path
) -> None:
    model = EmbeddingRewardModel.train(judged_texts(40, 3, 0), loaded, SOFT, name="quick")
    prompts, texts = ["one"] * 3, ["good film", "", "bad bad film"]
    model.fit_normalizer(prompts, texts, fitted_on="three texts")
    model.save(tmp_path / "rm")
    script = (
        "import json, sys; from lm_gym import load_reward_model; m = load_reward_model(sys.argv[1]);"
        "print(json.dumps([m.score(['one'] * 3, ['good film', '', 'bad bad film']).value.tolist(), m.name,"
        " m.normalizer.gain, m.links, m.training['judgements']]))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "rm"], capture_output=True, text=True, check=True)
    value, name, gain, links, count = json.loads(done.stdout.strip().splitlines()[-1])
    assert value == pytest.approx(model.score(prompts, texts).value.tolist(), abs=1e-6)
    assert (name, count, links) == ("quick", 40, model.links)
    assert model.normalizer is not None
    assert gain == model.normalizer.gain


def test_an_interrupted_embedding_goes_on(
    encoder: Path, judged_texts: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_gym.reward_models.embedding.sentence_features.CHUNK_TEXTS", 8)
    plain, embedded = SentenceFeatures.__call__, list[str]()

    def counting(limit: int) -> Any:
        def embed(self: SentenceFeatures, texts: list[str]) -> np.ndarray:
            if len(embedded) >= limit:
                raise KeyboardInterrupt
            embedded.extend(texts)
            return plain(self, texts)

        return embed

    rankings = judged_texts(20, 3, 0)
    unique = len({text for one in rankings for text in one.texts})
    assert unique > 24
    monkeypatch.setattr(SentenceFeatures, "__call__", counting(16))
    with pytest.raises(KeyboardInterrupt):
        EmbeddingRewardModel.train(rankings, encoder, SOFT, cache_dir=tmp_path, device="cpu")
    monkeypatch.setattr(SentenceFeatures, "__call__", counting(10**6))
    EmbeddingRewardModel.train(rankings, encoder, SOFT, cache_dir=tmp_path, device="cpu")
    assert len(embedded) == unique  # the 16 that were done were not done again


def test_it_keeps_the_contract(loaded: SentenceFeatures, judged_texts: Callable[..., Any]) -> None:
    check_reward_model(EmbeddingRewardModel.train(judged_texts(20, 3, 0), loaded, SOFT))


def test_each_text_is_embedded_once_across_objects(
    encoder: Path, judged_texts: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddingRewardModel.train(judged_texts(20, 3, 0), encoder, SOFT, cache_dir=tmp_path, device="cpu")
    monkeypatch.setattr(SentenceFeatures, "__call__", lambda *args, **kwargs: pytest.fail("embedded again"))
    again = EmbeddingRewardModel.train(judged_texts(20, 3, 0), encoder, SOFT, cache_dir=tmp_path, device="cpu")
    texts = list(judged_texts(20, 3, 0)[0].texts)
    assert (
        first.score(["p"] * len(texts), texts).value.tolist() == again.score(["p"] * len(texts), texts).value.tolist()
    )


@pytest.mark.parametrize("broken", ["head", "head byte", "encoder weights", "no encoder", "record", "other encoder"])
def test_a_broken_folder_is_refused(
    broken: str, loaded: SentenceFeatures, judged_texts: Callable[..., Any], tmp_path: Path
) -> None:
    folder = EmbeddingRewardModel.train(judged_texts(20, 3, 0), loaded, SOFT).save(tmp_path / "rm")
    weights = next((folder / "encoder").rglob("model.safetensors"))
    if broken == "head":
        (folder / "head.safetensors").write_bytes((folder / "head.safetensors").read_bytes()[:-10])
    elif broken == "head byte":
        content = bytearray((folder / "head.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "head.safetensors").write_bytes(bytes(content))
    elif broken == "encoder weights":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif broken == "no encoder":
        weights.unlink()
    elif broken == "record":
        (folder / "lm_gym_reward_model.json").write_text('{"kind": "embed')
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(bytes(content))
    with pytest.raises(ArtifactError):
        load_reward_model(folder)


def test_a_loss_that_is_no_number_stops_the_fit(loaded: SentenceFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SentenceFeatures, "__call__", lambda self, texts: np.full((len(texts), 6), np.nan, np.float32))
    with pytest.raises(DivergedError, match="the loss must be finite, got nan"):
        EmbeddingRewardModel.train([Judgement.pair("p", "x", "y")], loaded)


def test_bad_input_is_named(loaded: SentenceFeatures, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tell responses apart"):
        EmbeddingRewardModel.train([Judgement.of("p", ("x",), Thumb(True))], loaded)
    with pytest.raises(ModelLoadError, match="sentence encoder"):
        SentenceFeatures.from_pretrained(tmp_path / "nothing")
    for change in ({"l2": -1.0}, {"hidden": 0}, {"max_iterations": 0}, {"reads": "title"}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            EmbeddingTrainingConfig(**change)  # type: ignore[arg-type]
    model = EmbeddingRewardModel.train([Judgement.of("p", ("good", "bad"), Choice("a"))], loaded)
    with pytest.raises(RewardModelError, match="one prompt per response"):
        model.score(["p"], [])


@pytest.mark.skipif(
    not {"LM_GYM_DATA", "LM_GYM_ENCODER"} <= set(os.environ), reason="needs LM_GYM_DATA and LM_GYM_ENCODER"
)
def test_a_real_encoder_on_real_judgements(tmp_path: Path) -> None:
    """One fold of four; docs/log.md has all of them."""
    from lm_gym.reward_models import Judgement, load_judgements

    said = load_judgements(Path(os.environ["LM_GYM_DATA"]) / "arguments" / "pairs.jsonl").judgements

    def topic(one: Judgement) -> str:
        return one.prompt.split(". Argue for")[0]

    held_out = sorted({topic(one) for one in said})[2::4]
    train = [one for one in said if topic(one) not in held_out]
    test = [Judgement.pair(one.prompt, *one.texts) for one in said if topic(one) in held_out]
    model = EmbeddingRewardModel.train(train, os.environ["LM_GYM_ENCODER"], cache_dir=tmp_path)
    result = evaluate_reward_model(model, test)
    assert result.accuracy > 0.76
    assert result.accuracy > result.length_accuracy
    config = EmbeddingTrainingConfig(surface=True)
    surface = EmbeddingRewardModel.train(train, os.environ["LM_GYM_ENCODER"], config, cache_dir=tmp_path)
    assert evaluate_reward_model(surface, test).accuracy > result.accuracy + 0.03
