"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on any model of transformers: add, save, load, merge.

The base is frozen; the low-rank updates are trained, and whole modules beside them if they are named (a fresh head,
which a saved adapter without it would replace by random weights). An adapter is saved with a fingerprint of the base
that it belongs to.

Knows: peft. Does not know: heads, text, training, the other files of an artefact.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.tools.extras import require
from lm_gym.tools.files import reading
from lm_gym.tools.settings import Count, Positive, Share, Text, checked, settings

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "Adapter",
    "LoraSettings",
    "add_adapter",
    "base_fingerprint",
    "load_adapter",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Task = Literal["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"]


@settings
class LoraSettings:
    """Size and place of the low-rank matrices that are added to a frozen model."""

    rank: Count = 16
    """Rank of each update, >= 1."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank; > 0."""
    dropout: Share = 0.0
    """Dropout of the input of an adapter while training, in [0, 1)."""
    target_modules: Text | tuple[Text, ...] = "all-linear"
    """Names of the layers that get one; ``"all-linear"`` is every linear layer but the head."""

    def __post_init__(self) -> None:
        if not self.target_modules:
            raise ConfigError("LoraSettings.target_modules: must be a name, names, or all-linear, got no name")


@dataclass(frozen=True)
class Adapter:
    """A model with low-rank updates, and the base they belong to."""

    peft: Any
    """The ``PeftModel`` around the model; the model itself has the updates in it."""
    base: str | None
    """Path or hub id of the frozen weights; None if the base came as an object."""
    base_sha256: str
    """See :func:`base_fingerprint`."""

    def save(self, folder: Path) -> None:
        """Write the updates, the modules that are trained in full, and their settings.

        Raises:
            ConfigError: the base has no path or hub id, so nobody could load the adapter again.
        """
        if self.base is None:
            raise ConfigError(
                "adapter: must be saved with the path or hub id of its base, and this base came as an object; build "
                "the model from a path, or merge the adapter into it first and save it whole"
            )
        self.peft.peft_config["default"].base_model_name_or_path = self.base  # not the cache that it was loaded from
        self.peft.save_pretrained(str(folder), save_embedding_layers=False)

    def settings(self) -> dict[str, Any]:
        """Everything that decides how the updates act, as plain values for the identity of a run."""
        config = self.peft.peft_config["default"]
        names = config.target_modules
        targets = names if isinstance(names, str) else sorted(names)
        return {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "targets": targets}

    def record(self) -> dict[str, str | None]:
        """Base and fingerprint, for the record of an artefact."""
        return {"base": self.base, "base_sha256": self.base_sha256}

    def merged(self) -> Any:
        """Add the updates to the weights, in place. Returns: the plain model."""
        return self.peft.merge_and_unload()


def add_adapter(
    model: Any,
    settings: LoraSettings,
    *,
    task: Task,
    base: str | None,
    trained_in_full: Sequence[str] = (),
    in_float32: Sequence[str] = (),
    seed: int = 0,
) -> Adapter:
    """Freeze a model and add low-rank updates, in place. Exactly these, and the named modules, are trainable then.

    Args:
        model: a model of transformers.
        settings: of the updates.
        task: its kind, as peft calls it.
        base: path or hub id of its weights; None if they have none.
        trained_in_full: names of its modules whose weights did not come from the base.
        in_float32: those of them that are kept in float32 on a base of another type, in which they would lose small
            updates.
        seed: of the updates' first weights; the global generator is left as it was.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: no layer has one of the names.
    """
    settings = checked("adapter: settings", settings, LoraSettings)
    library = _peft()
    targets = settings.target_modules
    config = library.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=sorted(trained_in_full) or None,
        task_type=task,
    )
    fingerprint = base_fingerprint(model, trained_in_full)
    try:
        return Adapter(_wrapped(library, model, config, in_float32, seed), base, fingerprint)
    except ValueError as error:
        message = f"LoraSettings.target_modules: must name layers of the model, got {targets!r}; {error}"
        raise ConfigError(message) from error


def load_adapter(model: Any, folder: Path, record: Mapping[str, Any], *, in_float32: Sequence[str] = ()) -> Adapter:
    """Put a saved adapter, and the modules saved with it, on a model that was built on its base; it can learn on.

    Args:
        model: a model of transformers on the base's weights; modules that were trained in full may hold anything.
        folder: holds the adapter.
        record: result of :meth:`Adapter.record`.
        in_float32: see :func:`add_adapter`.

    Raises:
        ArtifactError: a file is missing or cut short, a weight is missing, or the base is another one.
        MissingExtraError: peft is not installed.
    """
    from safetensors.torch import load_file

    library = _peft()
    with reading(f"adapter {folder}", remedy="save the reward model again"):
        config = library.PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS)
    found = base_fingerprint(model, config.modules_to_save or ())
    if found != record["base_sha256"]:
        raise ArtifactError(
            f"adapter {folder}: must be loaded on the base it was trained on, and the weights of "
            f"{record['base']!r} have changed since; its outputs would differ silently"
        )
    config.inference_mode = False  # peft writes True, which would freeze what a later fit has to change
    peft = _wrapped(library, model, config, in_float32, seed=0)
    missing = sorted(set(library.get_peft_model_state_dict(peft, save_embedding_layers=False)) - set(weights))
    if missing:
        raise ArtifactError(f"adapter {folder}: must hold every weight, and lacks {missing[0]}")
    with _quiet():
        library.set_peft_model_state_dict(peft, weights)
    return Adapter(peft, record["base"], found)


def base_fingerprint(model: Any, trained_in_full: Sequence[str] = ()) -> str:
    """SHA-256 of the names, shapes and values of the weights that come from the base.

    Values are rounded to bfloat16, so that a base loaded in float32 or in bfloat16 has one fingerprint.

    Args:
        model: without an adapter.
        trained_in_full: its modules that do not come from the base.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if any(name.startswith(f"{part}.") for part in trained_in_full):
            continue
        rounded = tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype)
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes() if rounded.ndim else b"")
    return digest.hexdigest()


def _wrapped(library: ModuleType, model: Any, config: Any, in_float32: Sequence[str], seed: int) -> Any:
    with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        peft = library.get_peft_model(model, config)
    for name in in_float32:
        model.get_submodule(name).float()
    return peft.eval()


def _peft() -> ModuleType:
    return require("peft", extra="lora", purpose="a low-rank adapter")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's warnings about settings that it corrects by itself (the transposed layers of GPT-2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
