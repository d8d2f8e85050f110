"""Handles: strings and callables that stand for models in ``gym.make`` arguments, and the reward models they lead to.

Gymnasium deep-copies those arguments, so a model passed there would be copied up to four times. A handle is a path,
a hub id, a name registered under an entry point, ``"module:attribute"``, ``"file.py:attribute"``, or a callable; it is
resolved when the environment is built. Language models are loaded in ``lm_gym.models.language_model``.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError, RewardModelError
from lm_gym.pretrained.hub import asking_the_hub
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.binding import callable_name, required_names, signature_of
from lm_gym.scoring.protocol import RewardModel
from lm_gym.tools.files import read_json, reading
from lm_gym.tools.settings import Place, checked

__all__ = [
    "REWARD_MODEL_GROUP",
    "REWARD_MODEL_RECORD",
    "ModelHandle",
    "import_attribute",
    "is_import_path",
    "load_reward_model",
    "registered_reward_model",
]

ModelHandle = str | Path | Callable[[], Any]
REWARD_MODEL_GROUP = "lm_gym.reward_models"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SAFE_FILES = ("*.json", "*.jinja", "*.md", "*.model", "*.safetensors", "*.txt")
REWARD_MODEL_RECORD = "lm_gym_reward_model.json"
"""Name of the record in a saved reward model's folder; its ``kind`` is a name in the entry-point group."""


def is_import_path(handle: str) -> bool:
    """True for ``package.module:attribute`` and ``folder/file.py:attribute``, unless it is itself a path on disk."""
    module, _, attribute = handle.rpartition(":")
    named = module.endswith(".py") or all(part.isidentifier() for part in module.split("."))
    return named and attribute.isidentifier() and not Path(handle).exists()


def import_attribute(handle: str) -> Any:
    """Import ``package.module:attribute`` or ``folder/file.py:attribute``.

    A module that is not installed is looked for in the working directory, as ``python -m`` does; one that is installed
    is never replaced by a file there. A file is run once per process. In both cases the file may import its neighbours.

    Raises:
        ConfigError: the module, the file or the attribute does not exist, or running it fails.
    """
    name, _, attribute = handle.rpartition(":")
    try:
        module = _module_of_file(Path(name)) if name.endswith(".py") else _module_of_name(name)
    except ImportError as error:
        raise ConfigError(
            f"handle {handle!r}: must name an importable module:attribute; {error}. A module is looked for among the "
            f"installed ones and in {Path.cwd()}; give the file itself as path/to/file.py:{attribute}"
        ) from error
    except (Exception, SystemExit) as error:  # the file is a user's own and may fail in any way, or end the process
        remedy = '; put what is not to be imported under if __name__ == "__main__":'
        raise ConfigError(
            f"handle {handle!r}: {name} must run to its end when it is imported, and it raised {type(error).__name__}: "
            f"{error}{_place_of(error)}{remedy if isinstance(error, SystemExit) else ''}"
        ) from error
    if not hasattr(module, attribute):
        public = sorted(one for one in vars(module) if not one.startswith("_"))
        near = difflib.get_close_matches(attribute, public, n=1)
        raise ConfigError(
            f"handle {handle!r}: must name an importable module:attribute, and {getattr(module, '__file__', name)} has "
            f"no {attribute!r}{f'; did you mean {near[0]!r}?' if near else ''}"
        )
    return getattr(module, attribute)


def _module_of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top, here = name.partition(".")[0], str(Path.cwd())
        if error.name != top or here in sys.path:
            raise
    sys.path.append(here)  # last, so that no installed module is hidden by a file beside the user
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.path.remove(here)
        raise


def _module_of_file(path: Path) -> ModuleType:
    """Run a file as a module whose name holds a digest of its path: two files of one name are two modules."""
    path = path.resolve()
    if not path.is_file():
        raise ImportError(f"there is no file {path}")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be read as a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place_of(error: BaseException) -> str:
    """The last line of a traceback that is the user's own, as " (file.py, line 3)"; not one of a library below it."""
    if isinstance(error, SyntaxError):
        return ""  # its text says where
    frames = traceback.extract_tb(error.__traceback__)
    installed = tuple({sysconfig.get_path(one) for one in ("stdlib", "purelib", "platlib")})
    own = [one for one in frames if not one.filename.startswith((*installed, "<frozen", __file__))]
    last = (own or frames)[-1]
    return f" ({last.filename}, line {last.lineno})"


def load_reward_model(handle: str | Path | RewardModelLike) -> RewardModel:
    """Resolve the handle of a reward model.

    Args:
        handle: a reward model or reward function; the folder of a saved one, or of a one-label classification model
            or cross-encoder that other tools saved; a name registered in the entry-point group
            ``lm_gym.reward_models``; ``"module:attribute"`` or ``"file.py:attribute"`` (see :func:`import_attribute`),
            where the attribute is a reward model, a reward function, or a callable without required arguments that
            makes one; or a hub id, ``"owner/name"``, of such a folder.
            No code and no pickled file is fetched from the hub.

    Raises:
        ConfigError, ArtifactError, RewardModelError: it names nothing, the folder is broken, or it is no reward model.
        ModelLoadError: the hub does not have it, or cannot be reached.
    """
    if not isinstance(handle, str | Path):
        return as_reward_model(handle)
    if handle == "":
        raise ConfigError("reward model '': must be a folder, a name or module:attribute, got an empty text")
    checked("reward model", handle, Place)
    if isinstance(handle, str) and is_import_path(handle):
        return _from_attribute(import_attribute(handle), handle)
    if Path(handle).is_dir():
        return _from_folder(Path(handle))
    kinds = _registered()
    if str(handle) in kinds:
        kind = kinds[str(handle)].load()
        if needed := required_names(inspect.signature(kind)):
            raise ConfigError(
                f"reward model {str(handle)!r}: must need no arguments to go by its name, and needs {needed}; "
                "give the folder of a saved one"
            )
        return as_reward_model(kind())
    if isinstance(handle, str) and HUB_ID.fullmatch(handle):
        return _from_folder(_fetched(handle))
    raise ConfigError(
        f"reward model {str(handle)!r}: must be a saved reward model's folder, a hub id, module:attribute, "
        f"file.py:attribute, or one of the registered names {sorted(kinds)}"
    )


def registered_reward_model(name: str) -> Any:
    """The class of a reward model that is registered under a name. Raises: ConfigError: none is."""
    kinds = _registered()
    if name not in kinds:
        raise ConfigError(f"reward model {name!r}: must be one of the registered names {sorted(kinds)}")
    return kinds[name].load()


def _registered() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=REWARD_MODEL_GROUP)}


def _from_attribute(attribute: Any, handle: str) -> RewardModel:
    is_class = inspect.isclass(attribute)
    if is_class and (needed := required_names(inspect.signature(attribute))):
        raise ConfigError(f"reward model {handle!r}: a class must need no arguments to be made, and it needs {needed}")
    if is_class or (not hasattr(attribute, "score") and callable(attribute) and _is_factory(attribute)):
        attribute = attribute()
    return as_reward_model(attribute)


def _is_factory(attribute: Callable[..., Any]) -> bool:
    """Callable without arguments, and not a reward function that takes whatever it is given."""
    signature = signature_of(callable_name(attribute), attribute)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return not required_names(signature) and inspect.Parameter.VAR_KEYWORD not in kinds


def _fetched(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with asking_the_hub():
            return Path(snapshot_download(hub_id, allow_patterns=list(SAFE_FILES)))
    except Exception as error:  # the hub, the network and the cache each have their own
        raise ModelLoadError(
            f"reward model {hub_id!r}: there is no such folder, and the hub has no such model or cannot be reached "
            f"({str(error).partition(chr(10))[0]}); give the path of a local folder"
        ) from error


def _from_folder(folder: Path) -> RewardModel:
    kinds = _registered()
    if not (folder / REWARD_MODEL_RECORD).is_file() and (kind := _kind_of_checkpoint(folder)):
        return kinds[kind].load().from_checkpoint(folder)
    record = folder / REWARD_MODEL_RECORD
    rule, remedy = f"must hold a whole {REWARD_MODEL_RECORD} with a 'kind'", "save it again with its save() method"
    with reading(f"reward model folder {folder}", rule, remedy=remedy):
        kind = json.loads(record.read_text(encoding="utf-8"))["kind"]
        if not isinstance(kind, str):
            raise TypeError(f"'kind' is {kind!r}")
    if kind not in kinds:
        raise RewardModelError(
            f"reward model folder {folder}: its kind {kind!r} must be one of the registered names {sorted(kinds)}; "
            "install the package that brings it"
        )
    return kinds[kind].load().load(folder)


def _kind_of_checkpoint(folder: Path) -> str | None:
    """Kind of reward model that reads the classification model in a folder of other tools; None if it holds none."""
    try:
        settings = read_json(folder / "config.json", remedy="")
        classifies = any("SequenceClassification" in name for name in settings["architectures"])
    except (ArtifactError, KeyError, TypeError):
        return None
    if not classifies:
        return None
    # sentence-transformers up to 5 marks a cross-encoder in config.json, from 6 on by a file of its own.
    paired = "sentence_transformers" in settings or (folder / "config_sentence_transformers.json").is_file()
    return "cross-encoder" if paired else "preference"
