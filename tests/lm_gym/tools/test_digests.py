"""Digests tell inputs apart, and manifests tell a damaged folder from a whole one."""

import hashlib
from pathlib import Path

import pytest
import torch

from lm_gym.errors import ArtifactError
from lm_gym.runs.manifests import MANIFEST, check_manifest, read_note, write_manifest
from lm_gym.tools.digests import digest_file, digest_json, digest_parts, digest_tensors


def test_digests_of_parts_and_files(tmp_path: Path) -> None:
    assert digest_parts(["ab", "c"]) != digest_parts(["a", "bc"])
    assert digest_parts(["é"]) == digest_parts(["é".encode()])
    assert digest_json({"a": 1, "b": [2.5]}) == digest_json({"b": [2.5], "a": 1}) != digest_json({"a": 1, "b": [2]})
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert digest_file(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_digests_of_tensors_see_names_shapes_types_and_every_value() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    digest = digest_tensors([("a", weight), ("b", weight)])
    assert digest == digest_tensors([("b", weight.clone()), ("a", weight.t().contiguous().t())])
    changed = weight.clone()
    changed[1, 2] = 5.0000005
    others = [weight.reshape(3, 2), weight.to(torch.float64), changed, weight.to(torch.bfloat16)]
    assert len({digest, *(digest_tensors([("a", other), ("b", weight)]) for other in others)}) == 5
    assert digest_tensors([("a", weight), ("c", weight)]) != digest
    digest_tensors([("scalar", torch.tensor(1.5)), ("empty", torch.zeros(0, 2)), ("flag", torch.tensor([True]))])


def test_a_manifest_finds_every_flipped_byte(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "weights.safetensors"
    path.write_bytes(bytes(range(16)))
    write_manifest(tmp_path, note={"step": 3})
    assert read_note(tmp_path) == {"step": 3}
    (tmp_path / "README.md").write_text("added later")
    check_manifest(tmp_path)
    for position in range(16):
        raw = bytearray(range(16))
        raw[position] ^= 1
        path.write_bytes(raw)
        with pytest.raises(ArtifactError, match=r"weights\.safetensors: must have the 16 bytes that it was saved with"):
            check_manifest(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="and it is missing"):
        check_manifest(tmp_path)


def test_a_manifest_lists_what_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("a")
    (tmp_path / "config.json").write_text("{}")
    write_manifest(tmp_path, ("*.safetensors",))
    (tmp_path / "config.json").write_text("edited")
    check_manifest(tmp_path)


@pytest.mark.parametrize("text", [None, "", '{"format": 9}', '{"format": 1, "files": 3, "note": {}}'])
def test_a_folder_without_a_whole_manifest_is_not_whole(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_text(text)
    for check in (check_manifest, read_note):
        with pytest.raises(ArtifactError, match=f"must hold a whole {MANIFEST}, which is written last"):
            check(tmp_path)
