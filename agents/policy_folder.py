"""The folder of a saved policy: a language model, or the adapter on one, its tokenizer, and the critic beside it.

Knows: files. Does not know: how a policy acts or learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.models.language_model import DType, LanguageModel, load_language_model, load_weights, own_copy
from lm_gym.models.lora import (
    ADAPTER_CONFIG,
    LoraSettings,
    Task,
    adapter_record,
    add_adapter,
    lasting_base,
    load_adapter,
    saved_base,
    write_base,
)
from lm_gym.pretrained.loading import out_of_the_file
from lm_gym.runs.manifests import MANIFEST, check_manifest, write_manifest
from lm_gym.runs.states import difference
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.files import read_json, reading, replaced_folder, write_json
from lm_gym.tools.settings import shown

__all__ = [
    "check_policy_state",
    "load_model",
    "policy_state",
    "read_critic",
    "read_record",
    "set_critic_state",
    "set_policy_state",
    "take_folder",
    "write_folder",
]

POLICY_RECORD = "lm_gym_policy.json"
CRITIC_FILE = "critic.safetensors"
SAVE_AGAIN = "save the policy again with save_pretrained()"


def write_folder(
    folder: Path, language_model: LanguageModel, critic: Mapping[str, Tensor], *, separate_critic: bool
) -> None:
    """Write a policy; under an adapter the updates alone, with the name and the fingerprint of their base.

    The folder is written whole under another name and moved into place.

    Args: critic: its tensors by name.

    Raises:
        WriteError: the disk is full, say.
    """
    with quiet_transformers(), replaced_folder(folder) as temporary:
        if language_model.adapter is None:
            language_model.model.save_pretrained(temporary)
        else:
            language_model.adapter.save(temporary)
            (temporary / "README.md").unlink(missing_ok=True)  # peft's form, with nothing filled in
            write_base(temporary, language_model.adapter.record())
        language_model.tokenizer.save_pretrained(temporary)
        # Copies, since safetensors takes no tensor twice, as an encoder-decoder shares its embedding.
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in critic.items()}
        save_file(tensors, str(temporary / CRITIC_FILE))
        write_json(temporary / POLICY_RECORD, {"format": 1, "separate_critic": separate_critic})
        write_manifest(temporary, ("*.safetensors", ADAPTER_CONFIG))


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a policy's folder; an empty one for any other handle."""
    path = folder / POLICY_RECORD
    if not path.is_file():
        return {}
    record = read_json(path, remedy=SAVE_AGAIN)
    if not isinstance(record, dict) or not isinstance(record.get("separate_critic"), bool):
        raise ArtifactError(
            f"{path}: must be a JSON object whose separate_critic is true or false, got {shown(record)}; {SAVE_AGAIN}"
        )
    return record


def critic_state(value_head: nn.Module, critic: LanguageModel | None) -> dict[str, Tensor]:
    """The tensors of a value head, and of a trunk of its own if it has one, by name; not copied."""
    state = {f"value_head.{name}": tensor for name, tensor in value_head.state_dict().items()}
    if critic is not None:
        state |= {f"trunk.{name}": tensor for name, tensor in critic.trunk.state_dict().items()}
    return state


def set_critic_state(value_head: nn.Module, critic: LanguageModel | None, state: Mapping[str, Tensor]) -> None:
    """Take back what :func:`critic_state` gave. Raises: ValueError: it is that of another critic."""
    if (fault := difference(critic_state(value_head, critic), state)) is not None:
        raise ValueError(fault)
    parts = {"value_head.": value_head} | ({} if critic is None else {"trunk.": critic.trunk})
    for prefix, part in parts.items():
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        part.load_state_dict(own)


def policy_state(
    language_model: LanguageModel, value_head: nn.Module, critic: LanguageModel | None
) -> dict[str, dict[str, Tensor]]:
    """The tensors of a policy, ``model`` and ``critic``, by name, not copied; under an adapter the updates alone."""
    adapter = language_model.adapter
    model = language_model.model.state_dict() if adapter is None else adapter.state()
    return {"model": model, "critic": critic_state(value_head, critic)}


def check_policy_state(
    language_model: LanguageModel, value_head: nn.Module, critic: LanguageModel | None, state: Any
) -> None:
    """Refuse what :func:`set_policy_state` cannot take.

    Raises:
        ConfigError: it is that of another policy: of another model, with or without an adapter or a separate critic.
    """
    for part, tensors in policy_state(language_model, value_head, critic).items():
        given = state.get(part) if isinstance(state, Mapping) else state
        if (fault := difference(tensors, given)) is not None:
            raise ConfigError(
                f"policy {type(language_model.model).__name__}: must be given the state of a policy of the same model, "
                f"adapter and critic, and its part {part!r} {fault}; make the policy as that one was made"
            )


def set_policy_state(
    language_model: LanguageModel, value_head: nn.Module, critic: LanguageModel | None, state: Any
) -> None:
    """Take back what :func:`policy_state` gave; a state that does not fit changes nothing.

    Raises:
        ConfigError: see :func:`check_policy_state`.
    """
    check_policy_state(language_model, value_head, critic, state)
    if language_model.adapter is None:
        language_model.model.load_state_dict(state["model"])
    else:
        language_model.adapter.load_state(state["model"])
    set_critic_state(value_head, critic, state["critic"])


@contextmanager
def read_critic(folder: Path) -> Iterator[dict[str, Tensor]]:
    """A block that takes the tensors of the critic, by name.

    Raises:
        ArtifactError: the file is missing or cut short, or the critic that takes them is of other sizes.
    """
    path = folder / CRITIC_FILE
    with reading(path, "must be the whole value head of this model", remedy=SAVE_AGAIN):
        yield load_file(str(path))


def load_model(
    handle: str | Path,
    *,
    lora: LoraSettings | None,
    tokenizer: str | PreTrainedTokenizerBase | None,
    device: str | torch.device,
    dtype: DType,
    trust_remote_code: bool,
) -> LanguageModel:
    """The language model of a policy, which nobody else holds; an adapter's folder comes with the adapter on its base.

    Args: see :meth:`lm_gym.agents.LanguageModelPolicy.from_pretrained`.

    Raises:
        ConfigError: an adapter is asked for where there is one already, on layers that cannot have one, or on a model
            that a run will replace.
        ModelLoadError, UnsupportedModelError, ArtifactError: nothing loads, it cannot be used, or it is damaged.
    """
    saved = saved_base(handle)
    if saved is None and lora is None:
        shared = load_language_model(
            handle, tokenizer=tokenizer, device=device, dtype=dtype, trust_remote_code=trust_remote_code
        )
        return own_copy(shared)
    if lora is not None and lora.dropout:
        raise ConfigError(
            f"policy {handle}: lora.dropout must be 0, since a policy has no dropout (a ratio of probabilities "
            f"compares weights, not masks), got {lora.dropout}"
        )
    if saved is not None and lora is not None:
        raise ConfigError(
            f"policy {handle}: has an adapter already, and gets no second one; leave lora out to train that one on, or "
            "put a new one on LanguageModelPolicy.from_pretrained(...).merged(), saved as a folder of its own"
        )
    if saved is not None and (Path(handle) / MANIFEST).is_file():
        check_manifest(handle)
    own = load_language_model(
        handle if saved is None else saved["base"],
        tokenizer=handle if saved is not None and tokenizer is None else tokenizer,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        shared=False,
    )
    model = out_of_the_file(own.model)
    if saved is not None:
        adapter = load_adapter(model, Path(handle), saved)
    else:
        assert lora is not None
        task: Task = "SEQ_2_SEQ_LM" if own.is_encoder_decoder else "CAUSAL_LM"
        adapter = add_adapter(model, lora, task=task, base=lasting_base(handle))
    return LanguageModel(model, own.tokenizer, dtype=dtype, adapter=adapter)


def take_folder(
    language_model: LanguageModel, value_head: nn.Module, critic: LanguageModel | None, folder: Path
) -> None:
    """Give a policy the weights of a folder that :func:`write_folder` wrote, in place.

    Raises:
        ArtifactError: it is not such a folder, or a file has changed since; it holds an adapter and the model has none,
            or the other way round; the adapter is one on another base, or has other settings, layers or sizes; or the
            critic is of another kind.
        ModelLoadError: the language model does not load.
    """
    check_manifest(folder)
    separate = read_record(folder).get("separate_critic", critic is not None)
    if separate != (critic is not None):
        raise ArtifactError(
            f"{folder}: must hold a critic {'without' if critic is None else 'with'} a trunk of its own, as the policy "
            f"that takes its weights has, and separate_critic is {separate}; load it by "
            "LanguageModelPolicy.from_pretrained"
        )
    with read_critic(folder) as state:
        if (fault := difference(critic_state(value_head, critic), state)) is not None:
            raise ValueError(fault)
    _take_model(language_model, folder)
    set_critic_state(value_head, critic, state)


def _take_model(language_model: LanguageModel, folder: Path) -> None:
    saved, adapter, model = adapter_record(folder), language_model.adapter, language_model.model
    if (saved is None) != (adapter is None):
        raise ArtifactError(
            f"{folder}: must hold {'a whole model' if adapter is None else 'an adapter'}, as the policy that takes its "
            f"weights does, and holds {'an adapter' if adapter is None else 'a whole model'}; load it by "
            "LanguageModelPolicy.from_pretrained"
        )
    if saved is not None and adapter is not None:
        adapter.load(folder, saved)
        return
    found = load_weights(folder, dtype=model.dtype, kind=type(model)).state_dict()
    if (fault := difference(model.state_dict(), found)) is not None:
        raise ArtifactError(
            f"{folder}: must hold a model of the same layers and sizes as the policy that takes its weights, and "
            f"{fault}; load it by LanguageModelPolicy.from_pretrained"
        )
    model.load_state_dict(found)
