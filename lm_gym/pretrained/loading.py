"""The one place where something is loaded from a folder, a GGUF file or the hub, and its failure told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lm_gym.errors import LmGymError, ModelLoadError
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.settings import Place, checked

from .conversion import converted
from .handles import gguf_of
from .hub import asking_the_hub

__all__ = ["loadable", "loading", "out_of_the_file"]


def loadable(handle: str | Path) -> str:
    """What ``from_pretrained`` loads: the folder that a GGUF file was converted into, else the handle itself.

    Raises:
        ModelLoadError, MissingExtraError, WriteError: see :func:`lm_gym.pretrained.handles.gguf_of` and
            :func:`lm_gym.pretrained.conversion.converted`.
    """
    gguf = gguf_of(handle)
    return str(handle) if gguf is None else str(converted(gguf))


@contextmanager
def loading(subject: str, handle: str | Path, *, by: str) -> Iterator[str]:
    """A block that loads from a handle: any error of a library in it becomes a ModelLoadError.

    A cut file, an unknown architecture, no network: each of the libraries below has its own errors for them.

    Args:
        subject: names what is loaded, as "tokenizer"; the handle is added.
        handle: folder, GGUF file or hub id.
        by: who loads it.

    Yields: see :func:`loadable`.

    Raises:
        ModelLoadError: names subject, handle, rule, fault and remedy.
    """
    handle = checked(subject, handle, Place)
    source = loadable(handle)
    local = Path(source).is_dir()
    if not local and (isinstance(handle, Path) or handle.startswith(("/", "."))):
        raise ModelLoadError(
            f"{subject} {str(handle)!r}: must be a folder with a saved model, or a GGUF file, and there is neither"
        )
    try:
        with quiet_transformers(), nullcontext() if local else asking_the_hub():
            yield source
    except LmGymError:
        raise
    except Exception as error:
        fault = str(error).partition("\n")[0].rstrip(" .:") or type(error).__name__
        remedy = "copy the folder again, or take another" if local else "give a local folder if there is no network"
        raise ModelLoadError(
            f"{subject} {str(handle)!r}: must be a folder, a GGUF file or a hub id that {by} loads; loading failed: "
            f"{fault}; {remedy}"
        ) from error


def out_of_the_file(model: Any) -> Any:
    """Copy weights that are mapped from a file into memory, in place. Returns: the model.

    Matrix products round by the alignment of their inputs, and a file aligns weights otherwise than memory does, so
    a saved model would not score as the trained one did, to the last bit.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model
