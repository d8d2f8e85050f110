"""GGUF files as folders that ``from_pretrained`` loads: converted once each, and kept in a cache.

transformers takes minutes to read a GGUF file, and seconds to read what it saves of it. The weights are unpacked to
float32, which loses nothing that the file holds; the tokenizer, its chat template and the ids that end a response come
from the file too.

Knows: GGUF, the cache on the disk. Does not know: what the folder is used for.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from lm_gym.errors import LmGymError, ModelLoadError
from lm_gym.tools.console.progress import duration
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.extras import require
from lm_gym.tools.files import replaced_folder, write_json, writing
from lm_gym.tools.json_values import parse_object
from lm_gym.tools.locks import locked, release

from .handles import gguf_digest

__all__ = ["cache_folder", "converted"]

RECORD = "lm_gym_gguf.json"
"""File of a converted folder that tells what it was made from, and the size of each other file."""
CACHE = "LM_GYM_CACHE"
WAIT_SECONDS = 0.2
STOPS = ("eos", "eot", "eom")
"""Tokens by which llama.cpp ends a response: end of sequence, of turn, of message."""
logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where files are kept that can be made again: ``$LM_GYM_CACHE``, else ``lm-gym`` in the user's cache folder."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lm-gym"


def converted(gguf: Path) -> Path:
    """The folder of a GGUF file's model and tokenizer; the first call for a content makes it.

    The folder's name is the digest of the file and the version of transformers, so neither the place of the file nor
    that of the cache counts. Of several processes one converts, and the others wait for it.

    Raises:
        MissingExtraError: the package gguf is not installed.
        ModelLoadError: the file is damaged, or transformers does not read all of it.
        WriteError: the cache cannot be written.
    """
    import transformers

    folder = cache_folder() / "gguf" / f"{gguf_digest(gguf)[:32]}-transformers-{transformers.__version__}"
    if not _is_whole(folder):
        require("gguf", extra="gguf", purpose=f"the GGUF file {str(gguf)!r}")
        with _turn(folder, gguf):
            if not _is_whole(folder):
                _convert(gguf, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """True for a folder with all files that its record lists, in their sizes; sweepers of caches delete single ones."""
    try:
        sizes = parse_object((folder / RECORD).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, LookupError, AttributeError):
        return False


@contextmanager
def _turn(folder: Path, gguf: Path) -> Iterator[None]:
    """A block that one process at a time runs for a folder; without locks in the file system, all of them do."""
    lock = folder.with_name(f"{folder.name}.lock")
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    try:
        handle = locked(lock)
        if handle is None:
            logger.warning("GGUF file %s: another process converts it into %s; waiting for it", gguf, folder)
        while handle is None:
            time.sleep(WAIT_SECONDS)
            handle = locked(lock)
    except OSError:
        handle = None
    try:
        yield
    finally:
        if handle is not None:
            release(handle)


def _convert(gguf: Path, folder: Path) -> None:
    logger.warning("GGUF file %s: converting it, once, into %s; that may take minutes", gguf, folder)
    began = time.monotonic()
    with quiet_transformers(), _without_bars():
        model, tokenizer = _read(gguf)
        with replaced_folder(folder) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
            write_json(temporary / RECORD, {"format": 1, "source": gguf.name, "sizes": sizes})
    megabytes = sum(sizes.values()) / 1e6
    logger.warning("GGUF file %s: converted in %s, %.0f MB", gguf, duration(time.monotonic() - began), megabytes)


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers' GGUF reader, which has no switch for them."""
    with redirect_stderr(io.StringIO()):
        yield


def _read(gguf: Path) -> tuple[Any, Any]:
    """The model, with unpacked weights in float32, and the tokenizer of a file."""
    import transformers

    try:
        return _read_by_transformers(gguf.resolve())
    except LmGymError:
        raise
    except Exception as error:  # of numpy, struct, gguf or transformers, by what is wrong with the file
        raise ModelLoadError(
            f"GGUF file {str(gguf)!r}: must be whole, and of an architecture and a tokenizer that transformers "
            f"{transformers.__version__} reads from GGUF; reading it failed: "
            f"{str(error).partition(chr(10))[0] or type(error).__name__}; copy the file again, or take the model's "
            "folder with safetensors"
        ) from error


def _read_by_transformers(gguf: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, names = read_gguf_metadata(str(gguf))
    _refuse_unread_parts(gguf, metadata, names)
    with tempfile.TemporaryDirectory() as nothing_else:  # beside the file there may be a configuration of other weights
        tokenizer = AutoTokenizer.from_pretrained(nothing_else, gguf_file=str(gguf))
        model, report = AutoModelForCausalLM.from_pretrained(
            nothing_else,
            gguf_file=str(gguf),
            dtype=torch.float32,
            # Packed weights cannot be trained, and transformers refuses to save a model that was loaded without this.
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelLoadError(
            f"GGUF file {str(gguf)!r}: must hold every weight of {type(model).__name__}, and lacks {len(missing)}, "
            f"{missing[0]} for one; copy the file again"
        )
    stops = dict.fromkeys(metadata.get(f"tokenizer.ggml.{name}_token_id") for name in STOPS)
    if ids := [number for number in stops if number is not None]:
        model.generation_config.eos_token_id = ids
    return model, tokenizer


def _refuse_unread_parts(gguf: Path, metadata: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse what transformers would leave out without a word, and so load another model than the file holds.

    Raises:
        ModelLoadError: the file is one of several parts, or scales its rotary positions.
    """
    if metadata.get("split.count", 1) > 1:
        raise ModelLoadError(
            f"GGUF file {str(gguf)!r}: must be a whole model, and is one of {metadata['split.count']} parts; join them "
            "by llama-gguf-split --merge"
        )
    architecture = metadata["general.architecture"]
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    factors = sorted(name for name in names if name.startswith("rope_"))
    if architecture != "gpt-oss" and (scaling != "none" or factors):
        raise ModelLoadError(
            f"GGUF file {str(gguf)!r}: must have plain rotary positions, since transformers reads no others from GGUF, "
            f"and has {factors[0] if factors else f'the scaling {scaling!r}'}, without which every position would be "
            "another; take the model's folder with safetensors"
        )
