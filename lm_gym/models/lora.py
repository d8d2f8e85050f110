"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on any model of transformers: add, save, load, merge.

The base is frozen; the low-rank updates are trained, and whole modules beside them if they are named (a fresh head,
which a saved adapter without it would replace by random weights). An adapter is saved with a fingerprint of the base
that it belongs to. It can be turned off for a pass, which is then the base's, to the bit.

Knows: peft. Does not know: heads, text, training, the other files of an artefact.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.tools.extras import require
from lm_gym.tools.files import read_json, reading, write_json
from lm_gym.tools.settings import Count, Positive, Share, Text, checked, settings, shown

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "BASE_RECORD",
    "Adapter",
    "LoraSettings",
    "Task",
    "add_adapter",
    "base_fingerprint",
    "has_updates",
    "lasting_handle",
    "load_adapter",
    "saved_base",
    "write_base",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE_RECORD = "lm_gym_base.json"
"""File beside an adapter that names its base, where no record of a larger artefact does."""
Task = Literal["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"]
LANGUAGE_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")


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

    @classmethod
    def of_rank(cls, rank: int) -> LoraSettings | None:
        """The settings of a ``--lora-rank``: None, every weight learns, for 0."""
        return cls(rank=rank) if rank else None

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

    @property
    def model(self) -> Any:
        """The model of transformers that the updates are in."""
        return self.peft.get_base_model()

    @contextmanager
    def off(self) -> Iterator[None]:
        """A block in which the model computes what its base does, to the bit."""
        layers = [part for part in self.peft.modules() if isinstance(part, _tuner_layer())]
        try:
            for layer in layers:
                # What peft's own disable_adapter() sets; that one also changes which weights take gradients.
                layer._disable_adapters = True
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False

    def base_state(self) -> dict[str, Tensor]:
        """The base's weights under the names that they have without an adapter; not copied."""
        return dict(_base_state(self.model))

    def state(self) -> dict[str, Tensor]:
        """The updates; not copied."""
        base = {id(weight) for weight in self.base_state().values()}
        return {name: one for name, one in self.model.state_dict(keep_vars=True).items() if id(one) not in base}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave, in place. Raises: ConfigError: it is that of other updates."""
        own = self.state()
        if {n: one.shape for n, one in state.items()} != {n: one.shape for n, one in own.items()}:
            raise ConfigError(
                f"adapter: its state must be that of the same updates, {len(own)} tensors, got {len(state)}, or "
                "others; make the adapter with the settings that the state was made with"
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

    def load(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Take the updates that :meth:`save` wrote, in place.

        Args: record: result of :meth:`record` then.

        Raises:
            ArtifactError: the base is another one, the updates are of other layers or sizes, or a file is damaged.
        """
        _check_base(folder, record, self.base_sha256)
        _, weights = _read(_peft(), folder)
        _take(_peft(), self.peft, weights, folder)

    def merged(self) -> Any:
        """Add the updates to the weights, in place. Returns: the plain model."""
        return self.peft.merge_and_unload()

    def unloaded(self) -> Any:
        """Take the updates off, in place. Returns: the base."""
        return self.peft.unload()


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
    library = _peft()
    config, weights = _read(library, folder)
    found = base_fingerprint(model, config.modules_to_save or ())
    _check_base(folder, record, found)
    config.inference_mode = False  # peft writes True, which would freeze what a later fit has to change
    peft = _wrapped(library, model, config, in_float32, seed=0)
    _take(library, peft, weights, folder)
    return Adapter(peft, record["base"], found)


def _read(library: ModuleType, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    from safetensors.torch import load_file

    with reading(f"adapter {folder}", remedy="save it again"):
        return library.PeftConfig.from_pretrained(str(folder)), load_file(folder / ADAPTER_WEIGHTS)


def _check_base(folder: Path, record: Mapping[str, Any], found: str) -> None:
    if record["base_sha256"] not in (None, found):
        raise ArtifactError(
            f"adapter {folder}: must be loaded on the base it was trained on, and the weights of "
            f"{record['base']!r} have changed since; its outputs would differ silently"
        )


def _take(library: ModuleType, peft: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    own = library.get_peft_model_state_dict(peft, save_embedding_layers=False)
    if missing := sorted(own.keys() - weights.keys()):
        raise ArtifactError(f"adapter {folder}: must hold every weight, and lacks {missing[0]}")
    for name, weight in own.items():
        if weights[name].shape != weight.shape:
            raise ArtifactError(
                f"adapter {folder}: must hold {name} of shape {tuple(weight.shape)}, got "
                f"{tuple(weights[name].shape)}; it is one of another rank or another model"
            )
    with _quiet():
        library.set_peft_model_state_dict(peft, {name: weights[name] for name in own})


def saved_base(handle: str | Path) -> dict[str, Any] | None:
    """The record of the base of an adapter on a language model that lies in a folder; None for any other handle.

    An adapter that other tools saved names its base without a fingerprint.

    Raises:
        ArtifactError: the record is damaged, it is an adapter of another kind of model, or the base is not where it
            was.
    """
    folder = Path(handle)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    again = "save the adapter again"
    config = read_json(folder / ADAPTER_CONFIG, remedy=again)
    own = (folder / BASE_RECORD).is_file()
    record = read_json(folder / BASE_RECORD, remedy=again) if own else None
    if record is None and isinstance(config, dict):
        record = {"base": config.get("base_model_name_or_path"), "base_sha256": None}
    if not isinstance(record, dict) or not isinstance(record.get("base"), str) or "base_sha256" not in record:
        raise ArtifactError(f"adapter {folder}: must name its base and its fingerprint, got {shown(record)}; {again}")
    if config.get("task_type") not in LANGUAGE_TASKS:
        raise ArtifactError(
            f"adapter {folder}: must be one on a language model to stand for one, got task_type = "
            f"{config.get('task_type')!r}; give the folder of a language model"
        )
    base = record["base"]
    if Path(base).is_absolute() and not Path(base).exists():
        raise ArtifactError(
            f"adapter {folder}: its base must be where it was, {base}, and there is nothing; put it back, or write its "
            f"new place into {BASE_RECORD if own else ADAPTER_CONFIG}"
        )
    return record


def write_base(folder: Path, adapter: Adapter) -> None:
    """Name the base beside an adapter that :meth:`Adapter.save` wrote, for :func:`saved_base`."""
    write_json(folder / BASE_RECORD, {"format": 1, **adapter.record()})


def lasting_handle(base: Any) -> str | None:
    """Handle of a base that an artefact can keep: a full path or a hub id, None for an object."""
    if not isinstance(base, str | Path):
        return None
    return str(Path(base).resolve()) if Path(base).exists() else str(base)


def has_updates(model: torch.nn.Module) -> bool:
    """True if a model has low-rank updates in it, whoever added them."""
    return any("lora_" in name for name, _ in model.named_parameters())


def base_fingerprint(model: Any, trained_in_full: Sequence[str] = ()) -> str:
    """SHA-256 of the names, shapes and values of the weights that come from the base.

    Values are rounded to bfloat16, so that a base loaded in float32 or in bfloat16 has one fingerprint.

    Args:
        model: with an adapter, whose updates do not count, or without.
        trained_in_full: its modules that do not come from the base.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_base_state(model)):
        if any(name.startswith(f"{part}.") for part in trained_in_full):
            continue
        rounded = tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype)
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes() if rounded.ndim else b"")
    return digest.hexdigest()


def _base_state(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a model as they are without an adapter."""
    layers = [f"{name}." for name, part in model.named_modules() if isinstance(part, _tuner_layer())]
    for name, weight in model.state_dict(keep_vars=True).items():
        layer = next((one for one in layers if name.startswith(one)), None)
        if layer is None:
            yield name, weight
        elif name.startswith(f"{layer}base_layer."):
            yield layer + name.removeprefix(f"{layer}base_layer."), weight


def _wrapped(library: ModuleType, model: Any, config: Any, in_float32: Sequence[str], seed: int) -> Any:
    with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        peft = library.get_peft_model(model, config)
    for name in in_float32:
        model.get_submodule(name).float()
    return peft.eval()


def _peft() -> ModuleType:
    return require("peft", extra="lora", purpose="a low-rank adapter")


def _tuner_layer() -> Any:
    """Class of peft's layers with updates; without peft, of nothing."""
    if "peft" not in sys.modules:
        return ()
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence peft's warnings about settings that it corrects by itself (the transposed layers of GPT-2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
