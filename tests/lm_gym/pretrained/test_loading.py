"""One way to load from a handle, and one error of it, whoever loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym.errors import ModelLoadError
from lm_gym.models.language_model import load_tokenizer, load_weights
from lm_gym.pretrained.loading import loadable, loading
from lm_gym.reward_models import CrossEncoderRewardModel, PreferenceRewardModel
from lm_gym.reward_models.embedding.sentence_features import SentenceFeatures
from lm_gym.reward_models.scalar.heads import classifier_from

LOADERS: dict[str, Callable[[Any], Any]] = {
    "AutoModelForCausalLM": load_weights,
    "AutoTokenizer": load_tokenizer,
    "reward model base": lambda handle: classifier_from(handle, dtype="float32", seed=0),
    "cross-encoder": CrossEncoderRewardModel.from_checkpoint,
    "sentence encoder": SentenceFeatures.from_pretrained,
}


def test_errors_of_libraries_in_the_block_become_one(tmp_path: Path) -> None:
    rule = f"^thing '{tmp_path}': must be a folder, a GGUF file or a hub id that It loads; loading failed: one; copy"
    with pytest.raises(ModelLoadError, match=rule), loading("thing", tmp_path, by="It"):
        raise RuntimeError("one\ntwo")


def test_an_error_of_this_library_passes(tmp_path: Path) -> None:
    own = ModelLoadError("as it was")
    with pytest.raises(ModelLoadError) as found, loading("thing", tmp_path, by="Loader"):
        raise own
    assert found.value is own


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_a_hub_id_is_given_to_the_library_as_it_is(name: str) -> None:
    assert loadable(name) == name


@pytest.mark.parametrize("subject", LOADERS)
@pytest.mark.parametrize("content", ["[]", "3", "{", '{"model_type": "no-such-kind"}', '{"model_type": []}'])
def test_a_configuration_that_is_none_is_told_by_its_folder(tmp_path: Path, subject: str, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelLoadError, match=rf"'{tmp_path}': must "):
        LOADERS[subject](tmp_path)


@pytest.mark.parametrize("subject", LOADERS)
def test_a_folder_or_hub_id_that_is_not_there_is_told(tmp_path: Path, subject: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"{subject} '{tmp_path}/nowhere': must be a folder .* there is neither"):
        LOADERS[subject](tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match=rf"{subject} 'nobody/nothing': must be .* folder if there is no network"):
        LOADERS[subject]("nobody/nothing")


class TestGguf:
    """Every loader takes a GGUF file, and keeps its path and not that of the cache."""

    @pytest.fixture
    def file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
        pytest.importorskip("gguf")
        from ...helpers.gguf_files import write_gguf

        monkeypatch.setenv("LM_GYM_CACHE", str(tmp_path / "cache"))
        (tmp_path / "m").mkdir()
        return tmp_path / "m" / "tiny.gguf", write_gguf(tmp_path / "m" / "tiny.gguf")

    def test_it_is_the_base_of_a_reward_model(self, file: tuple[Path, Any], tmp_path: Path) -> None:
        path, written = file
        model = PreferenceRewardModel.from_base(path, device="cpu", seed=1)
        for name, weight in written.model.state_dict().items():
            torch.testing.assert_close(model.model.model.state_dict()[name], weight)
        again = PreferenceRewardModel.load(model.save(tmp_path / "rm"), device="cpu")
        texts = (["the cat"], [" sat on the mat"])
        assert again.score(*texts).value.tolist() == model.score(*texts).value.tolist()

    def test_an_adapter_names_the_file_as_its_base(self, file: tuple[Path, Any], tmp_path: Path) -> None:
        from lm_gym.reward_models import LoraSettings

        pytest.importorskip("peft")
        model = PreferenceRewardModel.from_base(file[0], device="cpu", lora=LoraSettings(rank=2))
        folder = model.save(tmp_path / "rm")
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(file[0])
        for path in folder.iterdir():
            assert str(tmp_path / "cache").encode() not in path.read_bytes()
        texts = (["the cat"], [" sat on the mat"])
        assert PreferenceRewardModel.load(folder).score(*texts).value.tolist() == model.score(*texts).value.tolist()

    def test_it_is_a_sentence_encoder(self, file: tuple[Path, Any]) -> None:
        pytest.importorskip("sentence_transformers")
        features = SentenceFeatures.from_pretrained(file[0].parent, device="cpu")
        assert features(["the cat sat"]).shape == (1, 96)
        assert features.source == str(file[0].parent)

    def test_a_cross_encoder_needs_a_head(self, file: tuple[Path, Any]) -> None:
        pytest.importorskip("sentence_transformers")
        with pytest.raises(ModelLoadError, match="must hold a trained head"):
            CrossEncoderRewardModel.from_checkpoint(file[0])
