"""A language model as a policy with a value head.

Knows: how to act, sample and look back on episodes with one shared trunk (or a separate critic), and how to be saved.
Does not know: rewards, advantages, optimisers, and how text is sampled, which the environment tells it. Dropout is off
throughout: a ratio of probabilities compares weights, not masks.

Shapes: B = rows or episodes, T = longest response, H = hidden width, N = counted response tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.config import SamplingConfig
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError
from lm_gym.models.decoder import ForcedStates, decoder_for
from lm_gym.models.generate import LanguageModelSampler, response_texts
from lm_gym.models.language_model import DType, LanguageModel, own_copy
from lm_gym.models.lora import LoraSettings
from lm_gym.models.reference import Reference
from lm_gym.models.teacher_forcing import episode_batches, forced_states, scatter, token_statistics
from lm_gym.policy import PolicyEvaluation
from lm_gym.prompts import load_prompts
from lm_gym.tools.settings import Count, Place, checked, shown

from .acting import TokenActor
from .policy_checks import check_can_be_saved, check_can_learn
from .policy_folder import (
    check_policy_state,
    critic_state,
    load_model,
    policy_state,
    read_critic,
    read_record,
    set_critic_state,
    set_policy_state,
    take_folder,
    write_folder,
)
from .recomputation import check_can_recompute, is_switched_on, recomputing

__all__ = ["LanguageModelPolicy", "checked_policy", "own_copy"]


class LanguageModelPolicy:
    """Any causal language model or encoder-decoder plus a scalar value head, zero at the start.

    The value head reads the state that the LM head reads. With ``separate_critic`` it reads a trunk of its own, which
    starts as a copy of the policy's.
    """

    def __init__(
        self, language_model: LanguageModel, *, separate_critic: bool = False, gradient_checkpointing: bool = False
    ) -> None:
        """Args:
        language_model: its weights are trained in place; never the object that a reference holds. Under an adapter its
            updates learn; else, where some weights are frozen and some are not, that stays, and a model that is frozen
            as a whole is not.
        separate_critic: give the value head its own trunk.
        gradient_checkpointing: run each layer again in the backward pass instead of keeping all that it computed; on,
            too, where the model's own ``gradient_checkpointing_enable()`` was called.

        Raises:
            ConfigError: it is no LanguageModel, or a critic of its own is asked for under an adapter.
            UnsupportedModelError: weights that learn are neither float32 nor bfloat16, updates are on the
                model that its ``adapter`` does not name, or no layer can be checkpointed.
        """
        if not isinstance(language_model, LanguageModel):
            raise ConfigError(
                f"{type(self).__name__}: must be given a LanguageModel, got {type(language_model).__name__}; wrap a "
                "model of transformers and its tokenizer by LanguageModel(model, tokenizer), or load one by "
                f"{type(self).__name__}.from_pretrained(folder or hub id)"
            )
        self.language_model = language_model
        check_can_learn(language_model, separate_critic=separate_critic)
        named = f"{type(self).__name__}: gradient_checkpointing"
        self.gradient_checkpointing = checked(named, gradient_checkpointing, bool) or is_switched_on(self.model)
        if self.gradient_checkpointing:
            check_can_recompute(self.model)
        self.model.eval()
        if not any(weight.requires_grad for weight in self.model.parameters()):
            self.model.requires_grad_(True)
        self.separate_critic = checked(f"{type(self).__name__}: separate_critic", separate_critic, bool)
        # Made without its random first weights, which would be drawn from the process-wide generator.
        head = nn.utils.skip_init(nn.Linear, language_model.hidden_size, 1, device=self.device, dtype=torch.float32)
        self.value_head: nn.Module = head
        for weight in head.parameters():
            nn.init.zeros_(weight)
        self.critic = own_copy(language_model) if separate_critic else None
        self.sampler = LanguageModelSampler(language_model)
        self._actor = TokenActor(language_model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        lora: LoraSettings | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        separate_critic: bool | None = None,
        gradient_checkpointing: bool = False,
        device: str | torch.device = "auto",
        dtype: DType = "auto",
        trust_remote_code: bool = False,
    ) -> LanguageModelPolicy:
        """Load a policy from a folder, GGUF file or hub id; a value head saved beside it is loaded too.

        Args:
            name_or_path: a handle that ``transformers`` loads, or a folder written by :meth:`save_pretrained`.
                One with an adapter loads the base that it names, and goes on training the adapter.
            lora: freeze the model and train low-rank updates; :meth:`reference` is then the model without them, and no
                second copy of it. None trains every weight.
            tokenizer: of a model that has none of its own.
            separate_critic: None takes what was saved, else False.
            gradient_checkpointing: less memory for an update that takes longer; its result is the same.
            device: "auto" or a torch device.
            dtype: "auto" trains float32 weights under bf16 autocast where the hardware has it; "bfloat16" stores
                bf16 weights, and the agents keep float32 copies to step on (another optimiser rounds most steps away).
            trust_remote_code: run code that ships with a hub model. Off unless you say so.

        Raises:
            ConfigError: a handle or setting is of another kind, or no layer has a name of ``lora.target_modules``.
            ModelLoadError, UnsupportedModelError, ArtifactError: nothing loads, it cannot be used, or it is cut short;
                or an adapter's base is another model by now.
            MissingExtraError: there is an adapter, and peft is not installed.
        """
        name_or_path = checked(f"{cls.__name__}: name_or_path (a model)", name_or_path, Place)
        separate_critic = checked(f"{cls.__name__}: separate_critic", separate_critic, bool | None)
        lora = checked(f"{cls.__name__}: lora", lora, LoraSettings | None)
        saved = read_record(Path(name_or_path))
        own = lora is None and saved.get("separate_critic", False)
        separate = own if separate_critic is None else separate_critic
        language_model = load_model(
            name_or_path,
            lora=lora,
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
        policy = cls(language_model, separate_critic=separate, gradient_checkpointing=gradient_checkpointing)
        if saved:
            with read_critic(Path(name_or_path)) as critic:
                if saved["separate_critic"] == separate:
                    set_critic_state(policy.value_head, policy.critic, critic)
        return policy

    def reference(self) -> Reference:
        """The model as it is without the adapter, for an environment: it shares the policy's weights, and stays as it
        is while the adapter learns.

        Raises:
            ConfigError: there is no adapter, so that all weights learn.
        """
        return Reference(self.language_model.base())

    def merged(self) -> LanguageModelPolicy:
        """A policy without an adapter that computes what this one does, up to rounding; a copy, with the value head.

        Raises:
            ConfigError: there is no adapter to merge.
        """
        adapter = own_copy(self.language_model).adapter
        if adapter is None:
            raise ConfigError(
                f"policy {type(self.model).__name__}: must have an adapter to be merged, and has none; save it as it is"
            )
        model = LanguageModel(adapter.merged(), self.tokenizer, dtype=self.language_model.dtype)
        policy = type(self)(model, gradient_checkpointing=self.gradient_checkpointing)
        policy.value_head.load_state_dict(self.value_head.state_dict())
        return policy

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save so that plain ``transformers`` loads the language model; the critic lies beside it.

        Under an adapter the folder holds the updates, and names the base with a fingerprint; loading it needs peft.
        The folder is written whole under another name and moved into place.

        Raises:
            ConfigError: the base of its adapter came as an object, which nobody finds again, or lies in the folder.
            WriteError: the disk is full, say.
        """
        folder = Path(checked("policy folder", folder, Place))
        check_can_be_saved(self.language_model, folder)
        write_folder(
            folder,
            self.language_model,
            critic_state(self.value_head, self.critic),
            separate_critic=self.separate_critic,
        )
        return folder

    def load_weights(self, folder: str | Path) -> None:
        """Take the weights of a folder that :meth:`save_pretrained` wrote, in place.

        Raises:
            ArtifactError: it is not such a folder, or a file has changed since; or it is that of another kind of policy
                (see :func:`.policy_folder.take_folder`).
            ModelLoadError: the language model does not load.
        """
        folder = Path(checked("policy folder", folder, Place))
        take_folder(self.language_model, self.value_head, self.critic, folder)
        self.refresh()

    @property
    def model(self) -> PreTrainedModel:
        """The ``transformers`` model."""
        return self.language_model.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.language_model.tokenizer

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.language_model.device

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.language_model.vocab_size

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that learns, in the language model, the value head, and the critic's trunk if it has one."""
        yield from (weight for weight in self.weights() if weight.requires_grad)

    def weights(self) -> Iterator[nn.Parameter]:
        """All weights, frozen ones too, in the order of :meth:`parameters`."""
        parts = [self.model, self.value_head, *([] if self.critic is None else [self.critic.trunk])]
        yield from (weight for part in parts for weight in part.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Weights of model and critic; under an adapter its updates stand for the model."""
        return policy_state(self.language_model, self.value_head, self.critic)

    def check_state(self, state: Any) -> None:
        """Refuse what :meth:`load_state_dict` cannot take. Raises: ConfigError: it is of another kind of policy."""
        check_policy_state(self.language_model, self.value_head, self.critic, state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is that of another kind of policy."""
        set_policy_state(self.language_model, self.value_head, self.critic, state)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was computed with older weights; whoever changes weights calls this.

        The agents here do, :meth:`load_state_dict` does, and so does :meth:`log_probs_and_values` when autograd is on,
        since an optimiser's step is about to follow it.
        """
        self._actor.refresh()

    def act(self, observation: dict[str, np.ndarray], sampling: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
        """Draw a token in each state of a running environment, keeping a cache of the prefixes.

        Act in an episode from its start: what a row holds then is its prompt (:meth:`.acting.TokenActor.act`).

        Args:
            observation: ``input_ids`` and ``attention_mask`` of shape (B, L), or (L,) for one row.
            sampling: the environment's rules (``env.sampling``).

        Returns: tokens (B,) int64 and their log-probabilities (B,) float32, in nats; scalars' shape for one row.
        """
        if not isinstance(observation, Mapping) or not {"input_ids", "attention_mask"} <= observation.keys():
            raise ConfigError(
                f"act: observation must be that of an environment, with input_ids and attention_mask, got "
                f"{shown(observation)}"
            )
        return self._actor.act(observation, checked("act: sampling", sampling, SamplingConfig))

    def respond(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        sampling: SamplingConfig | None = None,
        **settings: Any,
    ) -> list[str]:
        """Answer texts by texts: ``policy.respond(["Once upon"], temperature=0.7, max_new_tokens=32, seed=0)``.

        Args:
            prompts: texts, or rows with ``messages`` where the tokenizer has a chat template; one response each.
            sampling: rules of sampling, ``env.sampling`` for those that it was trained by; None takes the defaults.
            settings: fields of :class:`lm_gym.SamplingConfig` that replace those; ``seed`` fixes the draws.

        Raises:
            ConfigError: the prompts are one text, or a setting is out of range.
            UnknownSettingError: a setting does not exist.
            PromptError: a prompt is empty, or too long for the model together with ``max_new_tokens``.
        """
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
            raise ConfigError(f"respond: prompts must be a list of texts, got {shown(prompts)}; write [text]")
        given = checked("respond: sampling", sampling, SamplingConfig | None) or SamplingConfig()
        sampling = replace(given, **settings)
        rows = list(prompts)
        if not rows:
            return []
        limit = decoder_for(self.language_model).longest_prompt(sampling.max_new_tokens)
        if limit is not None and limit <= 0:
            raise ConfigError(
                "respond: max_new_tokens must leave room for a prompt in the "
                f"{self.language_model.positions} of the model, got {sampling.max_new_tokens}; lower it"
            )
        found = load_prompts(
            rows,
            self.tokenizer,
            max_prompt_tokens=limit,
            vocab_size=self.vocab_size,
        )
        return response_texts(self.language_model, [prompt.ids for prompt in found.prompts], sampling)

    def log_probs_and_values(
        self, episodes: Episodes, *, entropy: bool = True, values: bool = True
    ) -> PolicyEvaluation:
        """One teacher-forced pass; autograd follows if it is on.

        Args:
            episodes: the batch.
            entropy: False leaves the entropies 0, and spares their (N, V) tensors in the backward pass.
            values: False leaves the values 0, and spares a separate critic's pass.

        Returns: log-probabilities, values, entropies (B, T) and final values (B,), float32.
        """
        episodes = checked("log_probs_and_values: episodes", episodes, Episodes)
        if torch.is_grad_enabled():
            self.refresh()
        states = self._states(self.language_model, episodes)
        statistics = token_statistics(self.language_model, states.before, episodes, entropy=entropy)
        mask = episodes.response_mask
        log_probs, entropies = (scatter(flat, mask) for flat in statistics)
        if not values:
            return PolicyEvaluation(log_probs, torch.zeros_like(log_probs), entropies, log_probs.new_zeros(len(mask)))
        if self.critic is not None:
            states = self._states(self.critic, episodes)
        return PolicyEvaluation(
            log_probs, scatter(self._value(states.before), mask), entropies, self._value(states.after)
        )

    @torch.no_grad()
    def log_probs_and_values_in_batches(
        self, episodes: Episodes, max_batch_tokens: int, *, values: bool = True
    ) -> PolicyEvaluation:
        """:meth:`log_probs_and_values` without gradients, at most ``max_batch_tokens`` padded tokens at a time."""
        episodes = checked("log_probs_and_values: episodes", episodes, Episodes)
        max_batch_tokens = checked("log_probs_and_values: max_batch_tokens", max_batch_tokens, Count)
        shape = episodes.response_mask.shape
        grids = [torch.zeros(shape, device=self.device) for _ in range(3)]
        final = torch.zeros(shape[0], device=self.device)
        for rows in episode_batches(episodes, max_batch_tokens, self.device):
            part = self.log_probs_and_values(episodes[rows], values=values)
            index = torch.from_numpy(rows).to(self.device)
            for grid, found in zip(grids, part[:3], strict=True):
                grid[index, : found.shape[1]] = found
            final[index] = part.final_values
        log_probs, found_values, entropies = grids
        return PolicyEvaluation(log_probs, found_values, entropies, final)

    def _states(self, model: LanguageModel, episodes: Episodes) -> ForcedStates:
        again = self.gradient_checkpointing and torch.is_grad_enabled()
        with recomputing(model.model, model.turns) if again else nullcontext():
            return forced_states(model, episodes)

    def _value(self, states: Tensor) -> Tensor:
        return self.value_head(states.float()).squeeze(-1)


def checked_policy(subject: str, policy: Any) -> LanguageModelPolicy:
    """Refuse what is no policy whose weights can be trained. Args: subject: of an error, the agent's name.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(policy, LanguageModelPolicy):
        raise ConfigError(
            f"{subject}.policy: must be a LanguageModelPolicy, whose weights are trained, got {type(policy).__name__}; "
            "make one by LanguageModelPolicy.from_pretrained(folder or hub id), or by "
            "LanguageModelPolicy(LanguageModel(model, tokenizer))"
        )
    return policy
