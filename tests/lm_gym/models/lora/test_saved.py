"""The folder of a saved adapter: what names its base, which bases are refused, and adapters that other tools made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.models.language_model import load_language_model
from lm_gym.models.lora import (
    ADAPTER_CONFIG,
    BASE_RECORD,
    adapter_record,
    base_of_artefact,
    check_apart_from_base,
    lasting_base,
    lasting_handle,
    load_adapter,
    saved_base,
    write_base,
)
from lm_gym.runs.folder import RunIdentity, open_run
from lm_gym.testing import tiny_language_model

pytest.importorskip("peft")


def adapter_folder(folder: Path, base: str, **config: Any) -> Path:
    """What names the base of an adapter, without its weights."""
    folder.mkdir()
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "task_type": "CAUSAL_LM"} | config))
    write_base(folder, {"base": base, "base_sha256": "0" * 64})
    return folder


def test_the_base_must_be_there_and_be_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = adapter_folder(tmp_path / "a", "org/name"), tmp_path / "b"
    assert saved_base(first) == adapter_record(first)
    adapter_folder(second, str(first))
    assert saved_base(second) == adapter_record(second)  # an adapter's folder stands for the merged model
    write_base(first, {"base": str(second), "base_sha256": None})
    for folder in (first, second):
        with pytest.raises(ArtifactError, match=r"its base must be another model, and .* leads back to the adapter"):
            saved_base(folder)
    write_base(first, {"base": str(first), "base_sha256": None})
    with pytest.raises(ArtifactError, match=rf"and {first} leads back to the adapter itself, .* into {BASE_RECORD}"):
        saved_base(first)
    monkeypatch.chdir(tmp_path)
    (first / BASE_RECORD).unlink()
    (first / ADAPTER_CONFIG).write_text('{"task_type": "CAUSAL_LM", "base_model_name_or_path": "./gone"}')
    looked = rf"its base must be where it was, \./gone, .* below the working directory {tmp_path}; .* {ADAPTER_CONFIG}"
    with pytest.raises(ArtifactError, match=looked):
        saved_base(first)
    assert adapter_record(first) == {"base": "./gone", "base_sha256": None}
    (tmp_path / "gone").mkdir()
    assert saved_base(first) is not None


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "a", "org/name")
    (folder / ADAPTER_CONFIG).write_text("[]")
    with pytest.raises(ArtifactError, match=r"adapter_config\.json: must be a JSON object, got \[\]"):
        adapter_record(folder)
    write_base(adapter_folder(tmp_path / "b", ""), {"base": "", "base_sha256": None})
    with pytest.raises(ArtifactError, match=r"its base must be a folder, .* got ''; save the base as a folder"):
        saved_base(tmp_path / "b")
    (tmp_path / BASE_RECORD).write_text('{"bases": 1}')
    with pytest.raises(ArtifactError, match=r"must be a JSON object with the place of the base, got \{'bases': 1\}"):
        base_of_artefact(tmp_path, "org/name")
    (tmp_path / BASE_RECORD).unlink()
    assert base_of_artefact(tmp_path, "org/name") == "org/name"
    assert adapter_record(tmp_path) is None
    assert adapter_record("org/name") is None


def test_a_folder_that_holds_the_base_is_not_replaced(tmp_path: Path) -> None:
    whole = tmp_path / "deep" / "whole"
    whole.mkdir(parents=True)
    middle = adapter_folder(tmp_path / "middle", str(whole))
    for folder in (middle, whole, tmp_path / "deep", tmp_path):
        with pytest.raises(ConfigError, match="here: must not take the place of the base of its adapter"):
            check_apart_from_base("here", str(middle), folder)
    for folder in (whole / "below", tmp_path / "deep" / "who", tmp_path / "new"):
        check_apart_from_base("here", str(middle), folder)
    check_apart_from_base("here", "org/name", tmp_path)
    check_apart_from_base("here", None, tmp_path)


def test_a_base_that_does_not_last_is_no_base(tmp_path: Path) -> None:
    model = tmp_path / "run" / "best"
    with open_run(tmp_path / "run", RunIdentity(kind="x", settings={}, inputs={})) as run:
        model.mkdir()
        with pytest.raises(
            ConfigError, match=r"must stay where it is, and .*/best lies in .*/run, a run that is not f"
        ):
            lasting_base(model)
        assert lasting_handle(model) == str(model)
        run.finish({})
    assert lasting_base(model) == str(model)
    assert lasting_base("org/name") == "org/name"
    assert lasting_base("lm_gym.testing:tiny_language_model") is None
    assert lasting_base(object()) is None


def changed(**settings: Any) -> Callable[[Any, Path], None]:
    """Have peft make and save an adapter, with weights that do something."""

    def save(model: Any, folder: Path) -> None:
        import peft

        given = {"r": 2, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True} | settings
        made = peft.get_peft_model(model, peft.LoraConfig(**given))
        with torch.no_grad():
            for number, weight in enumerate(one for one in made.parameters() if one.requires_grad):
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) / 4)
        made.save_pretrained(str(folder))

    return save


def made_by(config: str, **settings: Any) -> Callable[[Any, Path], None]:
    """Have peft make and save another kind of adapter."""

    def save(model: Any, folder: Path) -> None:
        import peft

        peft.get_peft_model(model, getattr(peft, config)(task_type="CAUSAL_LM", **settings)).save_pretrained(
            str(folder)
        )

    return save


REFUSED = {
    "modules_to_save": (
        changed(modules_to_save=["ln_f"]),
        r"has modules_to_save = .*ln_f.* merge it into its base fir",
    ),
    "bias": (changed(bias="all"), r"has bias = 'all', with which the model without its adapter would not be the base"),
    "lora_only": (changed(bias="lora_only"), r"has bias = 'lora_only'"),
    "pissa": (changed(init_lora_weights="pissa"), r"has init_lora_weights = 'pissa'"),
    "tokens": (changed(trainable_token_indices=[1, 2]), r"has trainable_token_indices = "),
    "revision": (changed(revision="other"), r"has revision = 'other'"),
    "prefix": (
        made_by("PrefixTuningConfig", num_virtual_tokens=2),
        r"must be low-rank updates \(LORA\), and is PREFIX",
    ),
    "ia3": (
        made_by("IA3Config", target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True),
        r"must be low-rank updates \(LORA\), and is IA3",
    ),
    "tied head": (
        changed(target_modules=["lm_head"], fan_in_fan_out=False),
        r"lm_head, which shares its weight with a",
    ),
    "tied embedding": (
        changed(target_modules=["wte"], fan_in_fan_out=False),
        r"updates on transformer\.wte, which shar",
    ),
}


@pytest.mark.filterwarnings("ignore")  # peft has much to say
@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_whose_base_could_not_be_had_back_is_refused(kind: str, tmp_path: Path) -> None:
    save, text = REFUSED[kind]
    base = tiny_language_model()
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "adapter")
    save(load_language_model(base.model, tokenizer=base.tokenizer).model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "adapter" / ADAPTER_CONFIG).write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=text):
        load_language_model(tmp_path / "adapter", device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [{}, {"use_dora": True}, {"use_rslora": True, "rank_pattern": {"0.attn.c_attn": 1}}]
)
def test_an_adapter_whose_base_can_be_had_back_is_taken(settings: dict[str, Any], tmp_path: Path) -> None:
    base = tiny_language_model()
    ids = torch.tensor([[3, 5, 7, 2]])
    with torch.no_grad():
        plain = base.model(ids).logits
        other = tiny_language_model()
        changed(lora_dropout=0.05, **settings)(other.model, tmp_path / "adapter")
        learned = other.model.eval()(ids).logits
        model = tiny_language_model().model
        adapter = load_adapter(model, tmp_path / "adapter", {"base": "org/name", "base_sha256": None})
        assert torch.equal(model(ids).logits, learned)
        assert not torch.allclose(learned, plain, atol=1e-2)
        with adapter.off():
            assert torch.equal(model(ids).logits, plain)
        torch.testing.assert_close(adapter.merged()(ids).logits, learned, rtol=1e-4, atol=1e-4)
