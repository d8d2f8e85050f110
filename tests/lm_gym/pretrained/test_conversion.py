"""GGUF files: read as what they were written from, converted once, refused where they are damaged or left half read."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gguf")

from lm_gym.errors import MissingExtraError, ModelLoadError, WriteError
from lm_gym.models.language_model import load_language_model, load_tokenizer, load_weights
from lm_gym.pretrained import conversion
from lm_gym.pretrained.conversion import cache_folder, converted

from ...helpers.gguf_files import EOS, TEMPLATE, TEXTS, interleaved, small_tokenizer, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LM_GYM_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A file and the model that it was written from; nobody may change either."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path)


@pytest.fixture
def file(written: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the file, alone in a folder."""
    (tmp_path / "m").mkdir()
    return Path(shutil.copy(written[0], tmp_path / "m" / "tiny.gguf"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 9, 200, 7, 31, 277]])).logits


def test_the_model_has_the_logits_of_the_one_that_was_written(written: tuple[Path, Any]) -> None:
    path, model = written
    torch.testing.assert_close(logits(load_weights(path)), logits(model))
    for name, projection in model.named_modules():  # what would be seen if the rows were left as the file has them
        if name.endswith(("q_proj", "k_proj")):
            heads = 4 if name.endswith("q_proj") else 2
            wrong = torch.from_numpy(interleaved(projection.weight.detach().numpy(), heads))
            assert (wrong - projection.weight).abs().max() > 0.1


def test_matrices_in_float16_are_read_as_they_were_rounded(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "half.gguf", half=True)
    loaded = load_weights(tmp_path / "half.gguf")
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(logits(loaded), logits(model))


def test_the_tokenizer_reads_texts_as_the_one_that_was_written(file: Path) -> None:
    original, found = small_tokenizer(), load_tokenizer(file.parent)
    for text in [*TEXTS, " The 12 dogs’ mat\n", "</s>the cat"]:
        assert found(text)["input_ids"] == original(text)["input_ids"]
    assert found.chat_template == TEMPLATE
    assert (found.eos_token, found.bos_token, found.pad_token) == ("</s>", "<s>", "</s>")


def test_a_response_ends_at_the_tokens_that_the_file_names(file: Path, tmp_path: Path) -> None:
    assert load_language_model(file, device="cpu").eos_ids == (EOS,)
    write_gguf(tmp_path / "turns.gguf", values={"tokenizer.ggml.eot_token_id": 2})
    assert load_language_model(tmp_path / "turns.gguf", device="cpu").eos_ids == (EOS, 2)


def test_it_is_converted_once(file: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    folder = converted(file)
    weights = (folder / "model.safetensors").stat()
    assert folder.parent == cache / "gguf"
    assert f"{file}: converting it, once, into {folder}" in caplog.text
    caplog.clear()
    moved = file.rename(file.parent / "another name.gguf")
    assert converted(moved) == folder
    first, again = load_language_model(moved, device="cpu"), load_language_model(str(file.parent), device="cpu")
    assert again is first
    found = (folder / "model.safetensors").stat()
    assert (found.st_mtime_ns, found.st_ino) == (weights.st_mtime_ns, weights.st_ino)
    assert caplog.text == ""


def test_a_folder_that_lost_a_file_is_made_again(file: Path) -> None:
    folder = converted(file)
    for name, content in (("tokenizer.json", None), ("model.safetensors", b"cut"), (conversion.RECORD, b"[]")):
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        assert converted(file) == folder
        assert load_language_model(file, device="cpu").vocab_size == 278


def test_the_folder_tells_of_no_other_path(file: Path, tmp_path: Path) -> None:
    for path in converted(file).iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
        assert b"/tmp" not in path.read_bytes()


def test_files_beside_it_do_not_count(file: Path, written: tuple[Path, Any]) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (file.parent / name).write_text("[]")
    torch.testing.assert_close(logits(load_weights(file.parent)), logits(written[1]))
    assert load_tokenizer(file).eos_token_id == EOS


@pytest.mark.parametrize("keep", [0.0, 0.0001, 0.01, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(file: Path, cache: Path, keep: float) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(ModelLoadError, match=r"^GGUF file '.*tiny\.gguf': must be whole.*reading it failed: .+; copy"):
        load_language_model(file)
    assert not list(cache.glob("gguf/*transformers*[0-9]/*"))


def test_what_is_no_gguf_file_is_refused(file: Path) -> None:
    file.write_bytes(b"PK\3\4" + bytes(1000))
    with pytest.raises(ModelLoadError, match=r"does not start with the GGUF magic bytes"):
        load_tokenizer(file)


def test_an_architecture_that_transformers_does_not_read_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", architecture="rwkv7")
    with pytest.raises(ModelLoadError, match=r"transformers 5[.\d]+ reads.*architecture rwkv7 is not supported"):
        load_weights(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tensors": {"rope_freqs.weight": torch.ones(4).numpy()}}, r"and has rope_freqs\.weight"),
        ({"values": {"llama.rope.scaling.type": "yarn"}}, "and has the scaling 'yarn'"),
        ({"values": {"split.count": 3}}, "is one of 3 parts; join them"),
        ({"tensors": {"blk.1.ffn_up.weight": None}}, r"lacks 1, model\.layers\.1\.mlp\.up_proj\.weight for one"),
    ],
)
def test_a_model_that_would_be_another_one_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    write_gguf(tmp_path / "m.gguf", **settings)
    with pytest.raises(ModelLoadError, match=words):
        load_weights(tmp_path / "m.gguf")


def test_without_its_package_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"GGUF file '.*': needs the package 'gguf'.*lm-gym\[gguf\]"):
        load_language_model(file)


def test_a_cache_that_cannot_be_written_is_told(file: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(WriteError, match=str(cache)):
        load_language_model(file)


def test_the_cache_is_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LM_GYM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "lm-gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lm-gym"


LOAD = """
import sys, time
from pathlib import Path
import torch
from lm_gym.models.language_model import load_weights

torch.set_num_threads(1)
path = Path(sys.argv[1])
(path.parent / sys.argv[2]).touch()
while not all((path.parent / name).exists() for name in ("ready0", "ready1")):
    time.sleep(0.01)
print(load_weights(sys.argv[1])(torch.tensor([[5, 9, 200]])).logits.double().sum().item())
"""


def test_of_two_processes_one_converts(file: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(file), f"ready{number}"], env=env, **pipes)
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=180) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum(told.count("converting it, once") for _, told in outputs) == 1, outputs
