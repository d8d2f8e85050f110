"""What a handle of pretrained weights stands for, and its digest."""

import hashlib
from pathlib import Path

import pytest

from lm_gym.errors import ModelLoadError
from lm_gym.pretrained.handles import digest_handle, gguf_of
from lm_gym.tools.digests import digest_folder


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(name.encode())
    return path


@pytest.mark.parametrize("name", ["model.gguf", "MODEL.GGUF"])
def test_a_file_or_a_folder_with_one_stands_for_the_file(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "m", name, "README.md", "config.json")
    assert gguf_of(folder) == gguf_of(str(folder / name)) == folder / name


@pytest.mark.parametrize("other", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin"])
def test_a_folder_with_other_weights_stands_for_those(tmp_path: Path, other: str) -> None:
    folder = folder_of(tmp_path / "m", "model.gguf", other)
    assert gguf_of(folder) is None
    assert digest_handle(folder) == digest_folder(folder)


def test_of_several_files_one_must_be_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", "b.Q8_0.gguf", "a.Q4_1.gguf")
    with pytest.raises(ModelLoadError, match=r"holds 2: a\.Q4_1\.gguf, b\.Q8_0\.gguf; give the path of the one"):
        gguf_of(folder)
    assert gguf_of(folder / "b.Q8_0.gguf") == folder / "b.Q8_0.gguf"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"nothing\.gguf': must be a file, and there is no such file"):
        gguf_of(tmp_path / "nothing.gguf")


@pytest.mark.parametrize("handle", ["owner/name", "owner/name-GGUF", "module:factory", "file.gguf.py:factory"])
def test_other_handles_stand_for_no_file(handle: str) -> None:
    assert gguf_of(handle) is None


def test_the_digest_of_a_gguf_file_is_that_of_its_bytes_however_it_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", "model.gguf", "README.md")
    expected = hashlib.sha256(b"model.gguf").hexdigest()
    assert digest_handle(folder) == digest_handle(str(folder / "model.gguf")) == expected
    (folder / "model.gguf").rename(tmp_path / "other.gguf")
    assert digest_handle(tmp_path / "other.gguf") == expected
    (tmp_path / "other.gguf").write_bytes(b"another one")
    assert digest_handle(tmp_path / "other.gguf") != expected


def test_the_digest_of_another_handle_is_that_of_its_folder_or_its_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "m", "config.json")
    assert digest_handle(str(folder)) == digest_folder(folder)
    assert digest_handle("a-name/of-a-hub") == "a-name/of-a-hub"
