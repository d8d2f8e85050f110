"""Low-rank adapters on a reward model (LoRA, Hu et al. 2021, arXiv:2106.09685), with the head saved beside them.

A saved adapter without its head scores at random, without a word of warning. Here every module that did not come
from the base (the head, and an encoder's pooler where the base had none) is trained in full, saved and checked.

Knows: peft. Does not know: text, training, the other files of an artefact.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.extras import require

from .heads import has_positional_head

__all__ = ["ADAPTER_CONFIG", "Adapter", "LoraSettings", "add_adapter", "load_adapter", "trunk_fingerprint"]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Which low-rank matrices are added to a frozen model."""

    rank: int = 16
    """Rank of each update, >= 1."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank; > 0."""
    dropout: float = 0.0
    """On what enters an adapter while training, in [0, 1)."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get one; ``"all-linear"`` is every linear layer but the head."""

    def __post_init__(self) -> None:
        rules = {
            "rank": (self.rank >= 1, ">= 1"),
            "alpha": (0 < self.alpha < float("inf"), "finite and > 0"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "target_modules": (bool(self.target_modules), "a name, names, or all-linear"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ConfigError(f"LoraSettings.{name}: must be {rule}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Adapter:
    """A model with low-rank updates, and what they belong to."""

    peft: Any
    """The ``PeftModel`` around the classification model."""
    base: str | None
    """Path or hub id of the frozen weights; None if the base came as an object."""
    base_sha256: str
    """See :func:`trunk_fingerprint`."""

    def save(self, folder: Path) -> None:
        """Write adapter, head and their settings.

        Raises:
            ConfigError: the base has no path or hub id, so nobody could load the adapter again.
        """
        if self.base is None:
            raise ConfigError(
                "reward model: an adapter is saved with the path or hub id of its base, and this base came as an "
                "object; build the model from a path, or save it whole with model.merge().save(folder)"
            )
        self.peft.save_pretrained(str(folder), save_embedding_layers=False)

    def settings(self) -> dict[str, Any]:
        """What decides how the updates act, for telling runs apart."""
        config = self.peft.peft_config["default"]
        names = config.target_modules
        targets = names if isinstance(names, str) else sorted(names)
        return {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "targets": targets}

    def record(self) -> dict[str, str | None]:
        """What the artefact keeps."""
        return {"base": self.base, "base_sha256": self.base_sha256}

    def merged(self) -> Any:
        """The classification model with the updates added to its weights, in place. Returns: the model."""
        return self.peft.merge_and_unload()


def add_adapter(
    model: Any, settings: LoraSettings, *, fresh: Sequence[str], base: str | None, seed: int = 0
) -> Adapter:
    """Freeze a classification model and add low-rank updates, in place.

    Args:
        model: a one-label classification model.
        settings: of the updates.
        fresh: its modules whose weights did not come from the base; they are trained in full.
        base: path or hub id of the rest.
        seed: of the updates' first weights; the global generator is left as it was.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: no layer has one of the names.
    """
    library = _peft()
    heads = [name for name, part in model.named_children() if part is not model.base_model and list(part.parameters())]
    own = [*heads, *(name for name in fresh if name.split(".")[0] not in heads)]
    targets = settings.target_modules
    config = library.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=sorted(own),
        task_type="SEQ_CLS",
    )
    fingerprint = trunk_fingerprint(model, own)
    try:
        return Adapter(_wrapped(library, model, config, seed), base, fingerprint)
    except ValueError as error:
        message = f"LoraSettings.target_modules: must name layers of the model, got {targets!r}; {error}"
        raise ConfigError(message) from error


def load_adapter(model: Any, folder: Path, record: dict[str, Any]) -> Adapter:
    """Put a saved adapter, and the head saved with it, on a model that was built on its base.

    Args:
        model: a one-label classification model on the base's weights; its head may be anything.
        folder: of the artefact.
        record: what :meth:`Adapter.record` gave.

    Raises:
        ArtifactError: a file is missing or cut short, a weight is missing, or the base is another one.
        MissingExtraError: peft is not installed.
    """
    from safetensors.torch import load_file

    library = _peft()
    try:
        config = library.PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / ADAPTER_WEIGHTS)
    except Exception as error:  # json, safetensors and peft each have their own
        raise ArtifactError(f"reward model {folder}: must hold a whole adapter; reading it failed: {error}") from error
    found = trunk_fingerprint(model, config.modules_to_save or ())
    if found != record["base_sha256"]:
        raise ArtifactError(
            f"reward model {folder}: must be loaded on the base it was trained on, and the weights of "
            f"{record['base']!r} have changed since; scores would differ silently"
        )
    config.inference_mode = False  # peft writes True, which would freeze what a later fit has to change
    peft = _wrapped(library, model, config, seed=0)
    missing = sorted(set(library.get_peft_model_state_dict(peft, save_embedding_layers=False)) - set(weights))
    if missing:
        raise ArtifactError(f"reward model {folder}: its adapter must hold every weight, and lacks {missing[0]}")
    with _quiet():
        library.set_peft_model_state_dict(peft, weights)
    return Adapter(peft, record["base"], found)


def trunk_fingerprint(model: Any, own: Sequence[str]) -> str:
    """SHA-256 of the names, shapes and values of the weights that come from the base.

    Values are rounded to bfloat16, so that a base loaded in float32 or in bfloat16 has one fingerprint.

    Args:
        model: without an adapter.
        own: its modules that do not come from the base.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if any(name.startswith(f"{part}.") for part in own):
            continue
        rounded = tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype)
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes() if rounded.ndim else b"")
    return digest.hexdigest()


def _wrapped(library: ModuleType, model: Any, config: Any, seed: int) -> Any:
    with _quiet(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        peft = library.get_peft_model(model, config)
    if has_positional_head(model):  # in bfloat16 it would lose small updates; an encoder's own class needs one dtype
        model.score.float()
    return peft.eval()


def _peft() -> ModuleType:
    return require("peft", extra="lora", purpose="a low-rank adapter")


@contextmanager
def _quiet() -> Iterator[None]:
    """peft tells of settings that it corrects by itself (the transposed layers of GPT-2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
