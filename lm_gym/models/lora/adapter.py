"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on any model of transformers: add, save, load, merge.

The base is frozen; the low-rank updates are trained, and whole modules beside them if they are named (a fresh head,
which a saved adapter without it would replace by random weights). An adapter is saved with a fingerprint of the base
that it belongs to. It can be turned off for a pass, which is then the base's, to the bit.

Knows: peft. Does not know: heads, text, training, the other files of an artefact, where a base may lie.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.runs.states import difference
from lm_gym.tools.extras import require
from lm_gym.tools.files import reading
from lm_gym.tools.settings import Count, Positive, Share, Text, checked, settings

from .layers import Turns, base_fingerprint, base_weights, has_updates, layers_with_updates, tied_layer
from .saved import ADAPTER_WEIGHTS, check_apart_from_base, check_is_low_rank_alone

__all__ = ["Adapter", "LoraSettings", "Task", "add_adapter", "load_adapter"]

Task = Literal["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM"]
DECIDING = ("r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern")
"""Settings of peft that decide what the same tensors do."""
TIED = (
    "of which no update may be on one, since merged it would be in the other too; leave it out of the target modules "
    "(the other layers learn as well), or give it a weight of its own"
)


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
    turns: Turns = field(default_factory=Turns, repr=False, compare=False)
    """Block of each pass of the model, with the updates or without: passes of several threads take turns."""

    def check_is_on(self, model: Any) -> None:
        """Refuse it as the adapter of a language model.

        Raises:
            ConfigError: its updates are on another model or on none any more, or more than low-rank updates learns.
        """
        if self.model is not model:
            raise ConfigError(
                f"language model {type(model).__name__}: its adapter must be on this very model, got one on another "
                f"{type(self.model).__name__}; give the adapter that add_adapter(model, ...) returned"
            )
        self._layers()
        check_is_low_rank_alone(f"adapter on {type(model).__name__}", self.peft.peft_config["default"], ConfigError)

    def check_can_be_saved(self, subject: str, folder: str | Path) -> None:
        """Refuse a folder for it, or for a run that makes it. Args: subject: of an error.

        Raises:
            ConfigError: nobody could find its base again, the base lies in the folder, which is to be replaced, or it
                learns too.
        """
        self._layers()
        learned = (name for name, one in self.base_state().items() if one.requires_grad)
        if (name := next((one for one in learned if ".modules_to_save." not in one), None)) is not None:
            raise ConfigError(
                f"{subject}: the base of its adapter must stay as it is, and {name} may learn, which nobody would find "
                "in the folder of an adapter; freeze it (requires_grad_(False)), or train a whole model"
            )
        if self.base is None:
            raise ConfigError(
                f"{subject}: the base of its adapter must have a path or hub id to be saved, and this base came as an "
                "object or as code; start from a folder, a file or a hub id, or save the model with the adapter merged "
                "into it"
            )
        check_apart_from_base(subject, self.base, folder)

    def save(self, folder: Path) -> None:
        """Write the updates, the modules that are trained in full, and their settings.

        Raises:
            ConfigError: see :meth:`check_can_be_saved`.
        """
        self.check_can_be_saved("adapter", folder)
        self.peft.peft_config["default"].base_model_name_or_path = self.base  # not the cache that it was loaded from
        self.peft.save_pretrained(str(folder), save_embedding_layers=False)

    def settings(self) -> dict[str, Any]:
        """Everything that decides how the updates act, as plain values for the identity of a run."""
        config = self.peft.peft_config["default"]
        names = config.target_modules
        targets = names if isinstance(names, str) else sorted(names)
        plain = type(config)()
        known = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "targets": targets}
        rare = {name: getattr(config, name) for name in DECIDING[2:]}
        return known | {name: value for name, value in rare.items() if value != getattr(plain, name)}

    def record(self) -> dict[str, str | None]:
        """Base and fingerprint, for the record of an artefact."""
        return {"base": self.base, "base_sha256": self.base_sha256}

    @property
    def model(self) -> Any:
        """The model of transformers that the updates are in."""
        return self.peft.get_base_model()

    @contextmanager
    def off(self) -> Iterator[None]:
        """A block in which the model computes what its base does, to the bit.

        A pass with the updates waits in another thread until the block ends, if it is one of this library's (inside
        :attr:`turns`); a call of the model itself does not, and would be one without them.
        """
        with self.turns:
            before = {layer: layer._disable_adapters for layer in self._layers()}
            try:
                for layer in before:
                    # What peft's own disable_adapter() sets; that one also changes which weights take gradients.
                    layer._disable_adapters = True
                yield
            finally:
                for layer, was_off in before.items():
                    layer._disable_adapters = was_off

    def _layers(self) -> list[Any]:
        """The layers with updates. Raises: ConfigError: there are none any more, so the model is no base either."""
        layers = [*layers_with_updates(self.model).values()]
        if not layers:
            raise ConfigError(
                f"adapter: must be on its {type(self.model).__name__}, and was merged into it or taken off; take a "
                "LanguageModel(model, tokenizer) without it (policy.merged() merges a copy, not the policy itself)"
            )
        return layers

    def base_state(self) -> dict[str, Tensor]:
        """The base's weights under the names that they have without an adapter; not copied."""
        return dict(base_weights(self.model))

    def state(self) -> dict[str, Tensor]:
        """The updates; not copied."""
        base = {id(weight) for weight in self.base_state().values()}
        return {name: one for name, one in self.model.state_dict(keep_vars=True).items() if id(one) not in base}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave, in place. Raises: ConfigError: it is that of other updates."""
        own = self.state()
        if (fault := difference(own, state)) is not None:
            raise ConfigError(
                f"adapter: its state must be that of the same updates, and {fault}; make the adapter with the settings "
                "that the state was made with"
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

    def load(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Take the updates that :meth:`save` wrote, in place.

        Args: record: result of :meth:`record` then.

        Raises:
            ArtifactError: the base is another one, the updates have other settings, layers or sizes, or a file is
                damaged.
        """
        _check_base(folder, record, self.base_sha256)
        own = self.peft.peft_config["default"]
        config, weights = _read(_peft(), folder, whole_modules=bool(own.modules_to_save))
        for name in DECIDING:
            if getattr(config, name) != getattr(own, name):
                raise ArtifactError(
                    f"adapter {folder}: must have the settings of the adapter that takes its updates, and its {name} "
                    f"is {getattr(config, name)}, not {getattr(own, name)}; load it as a model of its own"
                )
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
        ConfigError: no layer has one of the names, one shares its weight with another module, or the model has updates
            already; the model is as it was.
    """
    settings = checked("adapter: settings", settings, LoraSettings)
    library = _peft()
    _check_has_none(model)
    targets = settings.target_modules
    if isinstance(targets, str) and targets != "all-linear":
        targets = (targets,)  # peft would take a text for a pattern of whole names
    config = library.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=sorted(trained_in_full) or None,
        task_type=task,
    )
    fingerprint = base_fingerprint(model, trained_in_full)
    subject = "LoraSettings.target_modules: must name layers of the model"
    with _undone_on_error(model) as undo:
        try:
            peft = _wrapped(library, model, config, in_float32, seed)
        except ValueError as error:
            raise ConfigError(f"{subject}, got {settings.target_modules!r}; {error}") from error
        undo.callback(peft.unload)
        if (tied := tied_layer(model)) is not None:
            raise ConfigError(f"{subject} with weights of their own, and {tied} shares one with another, {TIED}")
        undo.pop_all()
    return Adapter(peft, base, fingerprint)


def load_adapter(
    model: Any,
    folder: Path,
    record: Mapping[str, Any],
    *,
    in_float32: Sequence[str] = (),
    whole_modules: bool = False,
) -> Adapter:
    """Put a saved adapter, and the modules saved with it, on a model that was built on its base; it can learn on.

    Args:
        model: a model of transformers on the base's weights; modules that were trained in full may hold anything.
        folder: holds the adapter.
        record: result of :meth:`Adapter.record`.
        in_float32: see :func:`add_adapter`.
        whole_modules: True takes modules that were trained in full beside the updates, as the head of a reward model;
            False refuses them.

    Raises:
        ArtifactError: a file is missing or cut short, a weight is missing or one too many, the base is another one, it
            is no plain low-rank adapter, or an update is on a layer that shares its weight with another.
        ConfigError: the model has updates already.
        MissingExtraError: peft is not installed.
    """
    library = _peft()
    _check_has_none(model)
    config, weights = _read(library, folder, whole_modules=whole_modules)
    found = base_fingerprint(model, config.modules_to_save or ())
    _check_base(folder, record, found)
    config.inference_mode = False  # peft writes True, which would freeze what a later fit has to change
    with _undone_on_error(model) as undo:
        with reading(f"adapter {folder}", "must be on layers of this model", remedy="give it the base it was made on"):
            peft = _wrapped(library, model, config, in_float32, seed=0)
        undo.callback(peft.unload)
        if (tied := tied_layer(model)) is not None:
            raise ArtifactError(
                f"adapter {folder}: has updates on {tied}, which shares its weight with another layer, {TIED}"
            )
        _take(library, peft, weights, folder)
        undo.pop_all()
    return Adapter(peft, record["base"], found)


def _check_has_none(model: Any) -> None:
    if has_updates(model):
        raise ConfigError(
            f"adapter: {type(model).__name__} must have no low-rank updates yet, and has some, which a second adapter "
            "would replace; merge them first (adapter.merged()), or take another copy of the model"
        )


def _undone_on_error(model: nn.Module) -> ExitStack:
    """A block that changes a model and which of its weights learn; undone, unless ``pop_all`` says that it is done."""
    learned = [(weight, weight.requires_grad) for weight in model.parameters()]
    modes = [(part, part.training) for part in model.modules()]

    def undo() -> None:
        for weight, learns in learned:
            weight.requires_grad_(learns)
        for part, is_training in modes:
            part.training = is_training

    stack = ExitStack()
    stack.callback(undo)
    return stack


def _read(library: ModuleType, folder: Path, *, whole_modules: bool) -> tuple[Any, dict[str, Tensor]]:
    from safetensors.torch import load_file

    with reading(f"adapter {folder}", remedy="save it again"), _quiet():
        config = library.PeftConfig.from_pretrained(str(folder))
        check_is_low_rank_alone(f"adapter {folder}", config, ArtifactError, whole_modules=whole_modules)
        return config, load_file(folder / ADAPTER_WEIGHTS)


def _check_base(folder: Path, record: Mapping[str, Any], found: str) -> None:
    if record["base_sha256"] not in (None, found):
        raise ArtifactError(
            f"adapter {folder}: must be loaded on the base it was trained on, and the weights of "
            f"{record['base']!r} have changed since; its outputs would differ silently"
        )


def _take(library: ModuleType, peft: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    own = library.get_peft_model_state_dict(peft, save_embedding_layers=False)
    if (fault := difference(own, weights)) is not None:
        raise ArtifactError(
            f"adapter {folder}: must hold every weight of the updates and no other, and {fault}; it is one of other "
            "layers, of another rank or another model, or was saved with whole layers beside it (merge it first)"
        )
    with _quiet():
        library.set_peft_model_state_dict(peft, dict(weights))


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
