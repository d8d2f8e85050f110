"""``--lora-rank``: a run whose policy is an adapter, and that policy wherever a model is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lm_gym import reviews
from lm_gym.agents import LanguageModelPolicy
from lm_gym.app.cli import main
from lm_gym.app.pipeline import stages
from lm_gym.assets import REVIEWS_LM
from lm_gym.errors import ModelLoadError
from lm_gym.models.lora import BASE_RECORD, LoraSettings
from lm_gym.models.reference import Reference
from lm_gym.reward_models.embedding.sentence_features import SentenceFeatures
from lm_gym.tools.files import read_jsonl, write_jsonl

pytest.importorskip("peft")
SHORT = ["--episodes", "4", "--iterations", "1", "--max-new-tokens", "4", "--tracker", "none", "--lr", "1e-2"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [{"prompt": one} for one in reviews.prompts("train")[:4]]
    return str(write_jsonl(tmp_path_factory.mktemp("data") / "prompts.jsonl", rows))


def train(prompts: str, out: Path, *more: str, model: Any = REVIEWS_LM) -> int:
    given = ["--model", str(model), "--reward-model", "lm_gym.reviews:true_score", "--data", prompts, "--out", str(out)]
    return main(["train", *given, *SHORT, *more])


@pytest.fixture(scope="module")
def trained(prompts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "run"
    seen: list[Reference] = []
    real = stages.make_env
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lm_gym.app.from_files.standalone.make_env", lambda *args, **kw: seen.append(args[0]) or real(*args, **kw)
        )
        assert train(prompts, out, "--lora-rank", "2") == 0
    assert seen[0].language_model.is_base  # one copy of the model
    return out


def test_a_run_holds_the_updates_and_is_compared_with_its_beginning(
    trained: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained / "policy"
    assert (folder / BASE_RECORD).is_file()
    assert not (folder / "model.safetensors").exists()
    policy = LanguageModelPolicy.from_pretrained(folder)
    assert policy.language_model.adapter is not None
    assert policy.language_model.adapter.settings()["r"] == 2
    assert main(["compare", str(trained), "--max-new-tokens", "4"]) == 0
    assert "the first wins" in " ".join(capsys.readouterr().out.split())


def test_the_policy_stands_for_a_model(
    trained: Path, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = LanguageModelPolicy.from_pretrained(trained / "policy").merged().save_pretrained(tmp_path / "merged")
    rows = []
    for number, model in enumerate((trained, merged)):
        out = tmp_path / f"{number}.jsonl"
        asked = ["--prompt", "The film", "--max-new-tokens", "8", "--out", str(out)]
        assert main(["generate", "--model", str(model), *asked]) == 0
        rows.append(read_jsonl(out))
    assert rows[0] == rows[1]
    with pytest.raises(ModelLoadError, match=r"must be a whole model, and is an adapter on one; save it merged by"):
        SentenceFeatures.from_pretrained(trained / "policy")
    assert train(prompts, tmp_path / "on", model=trained) == 0  # its adapter learns on
    assert (tmp_path / "on" / "policy" / BASE_RECORD).is_file()
    assert train(prompts, tmp_path / "again", "--lora-rank", "2", model=trained) == 2
    assert "has an adapter already, and gets no second one" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "again").exists()


def test_a_run_is_not_overwritten_by_an_adapter_on_its_own_policy(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(prompts, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(prompts, out, "--lora-rank", "2", "--overwrite", model=out) == 2
    assert "must not take the place of the base of its adapter" in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_policy_is_its_own_reference_where_that_is_the_model_that_is_asked_for(trained: Path) -> None:
    policy = stages.load_policy(REVIEWS_LM, lora_rank=2)
    assert stages.reference_for(policy, REVIEWS_LM).model is policy.model
    assert stages.reference_for(policy, str(REVIEWS_LM)).model is policy.model
    assert stages.reference_for(policy, trained / "policy").model is not policy.model
    plain = stages.load_policy(REVIEWS_LM)
    assert stages.reference_for(plain, REVIEWS_LM).model is not plain.model
    assert LoraSettings.of_rank(0) is None
