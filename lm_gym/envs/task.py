"""The task of an environment: prompts, rules and reference, checked once.

Both environments and the fused rollout read their rules here.

Shapes: B = rows, L = max_prompt_tokens + max_new_tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from lm_gym.config import RewardConfig, SamplingConfig, configs_from_flat
from lm_gym.envs.mdp import TextGenerationMDP
from lm_gym.errors import ActionError, ConfigError, UnknownSettingError
from lm_gym.models.reference import Reference
from lm_gym.models.response_text import ResponseText
from lm_gym.models.sampling import StopRule, with_stop_ids
from lm_gym.prompts import Prompt, PromptSet, PromptTruncation, ScoredChat, checked_tokenizer, load_prompts
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.scoring.adapters import RewardModelLike, as_reward_model
from lm_gym.scoring.protocol import RewardModel, columns_for
from lm_gym.tools.settings import Whole, checked, refuse_unknown

__all__ = ["MIN_LOG_PROB", "ActionMode", "TaskEnv", "TextTask"]

ActionMode = Literal["token", "token_and_log_prob"]
MIN_LOG_PROB = -1e4
"""Lower bound of the log-probability in the action space, in nats (an infinite bound is no valid sample space)."""
LOG_PROB_SLACK = 1e-6
"""Log-probability above 0 that passes as rounding, in nats."""


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """Prompts, rules and reference of a text-generation MDP."""

    reference: Reference | None
    """Frozen model for the KL; None pays none."""
    tokenizer: Any
    """Turns prompts into ids and ids into text."""
    prompts: PromptSet
    """Drawn from uniformly at reset."""
    reward: RewardConfig
    """Settings of payment."""
    sampling: SamplingConfig
    """Temperature, truncation, length cap and stops, its stop tokens named, for everything that draws or labels."""
    action_mode: ActionMode
    """Form of an action: a token, or a token with the policy's log-probability."""
    vocab_size: int
    """V."""
    pad_id: int
    """Id written to places that no mask counts."""

    @classmethod
    def of(
        cls,
        reference: Reference | None,
        prompts: Any,
        *,
        tokenizer: Any = None,
        action_mode: ActionMode = "token",
        reward: RewardConfig | None = None,
        sampling: SamplingConfig | None = None,
        max_prompt_tokens: int | None = None,
        prompt_truncation: PromptTruncation = "error",
        system_prompt: str | None = None,
        scored_chat: ScoredChat = "template",
        **flat: Any,
    ) -> TextTask:
        """Check the parts against each other and tokenise the prompts.

        Args:
            reference: frozen language model, or None for no KL (then ``kl_coef`` must be 0).
            prompts: strings, rows, a file of rows, a ``datasets.Dataset``, a hub id, or a PromptSet.
            tokenizer: only without a reference.
            action_mode: "token" (``Discrete``) or "token_and_log_prob" (``Dict``).
            reward: settings of payment, or its fields as keyword arguments.
            sampling: temperature, length cap, stops, or its fields as keyword arguments.
            max_prompt_tokens: limit; None takes the longest prompt.
            prompt_truncation: treatment of a longer prompt.
            system_prompt: system message of every chat that has none; with it, a text is the user's turn of a chat.
            scored_chat: text of a chat that the reward model reads: "template", "transcript" or "last_message".
            flat: fields of RewardConfig and SamplingConfig, such as ``kl_coef=.1, max_new_tokens=16``.

        Raises:
            ConfigError: settings that contradict each other, a response that cannot fit the model's context, or KL
                without a reference.
            PromptError: see :func:`lm_gym.prompts.load_prompts`.
        """
        reward, sampling = configs_from_flat(reward, sampling, flat)
        action_mode = checked("action_mode", action_mode, ActionMode)
        reference = checked("reference", reference, Reference | None)
        if reference is None and reward.kl_coef > 0:
            raise ConfigError(
                f"kl_coef: needs a reference model, and there is none; got kl_coef = {reward.kl_coef}. "
                "Pass a model, or kl_coef=0"
            )
        tokenizer = reference.tokenizer if tokenizer is None and reference is not None else tokenizer
        if tokenizer is None:
            raise ConfigError("tokenizer: an environment without a reference model needs tokenizer=..., got none")
        if checked_tokenizer(tokenizer).eos_token_id is None:
            raise ConfigError(
                f"tokenizer {type(tokenizer).__name__}: must have an EOS token, since that is how a response ends; "
                "set tokenizer.eos_token"
            )
        vocab_size = len(tokenizer) if reference is None else reference.language_model.vocab_size
        loaded = load_prompts(
            prompts,
            tokenizer,
            max_prompt_tokens=max_prompt_tokens,
            truncation=prompt_truncation,
            system_prompt=system_prompt,
            scored_chat=scored_chat,
            vocab_size=vocab_size,
        )
        _check_context(reference, loaded.max_prompt_tokens, sampling.max_new_tokens)
        eos = (int(tokenizer.eos_token_id),) if reference is None else reference.language_model.eos_ids
        return cls(
            reference=reference,
            tokenizer=tokenizer,
            prompts=loaded,
            reward=reward,
            sampling=with_stop_ids(sampling, eos, vocab_size),
            action_mode=action_mode,
            vocab_size=vocab_size,
            pad_id=_pad_id(reference, tokenizer),
        )

    @property
    def max_length(self) -> int:
        """L: columns of an observation."""
        return self.prompts.max_prompt_tokens + self.sampling.max_new_tokens

    def stop_rule(self) -> StopRule:
        """The rule of where a response ends, and with what text."""
        return StopRule(self.response_text(), self.sampling)

    def response_text(self) -> ResponseText:
        """The rule of what text a response is; without a reference, that of a causal model."""
        model = None if self.reference is None else self.reference.language_model
        return ResponseText(self.tokenizer, apart=model is not None and model.is_encoder_decoder)

    def mdp(self, num_rows: int) -> TextGenerationMDP:
        """The MDP over ``num_rows`` rows."""
        return TextGenerationMDP(
            num_rows=num_rows,
            max_prompt_tokens=self.prompts.max_prompt_tokens,
            reference=self.reference,
            stop_rule=self.stop_rule(),
            reward=self.reward,
            sampling=self.sampling,
            pad_id=self.pad_id,
        )

    def observation_space(self) -> spaces.Dict:
        """``input_ids`` (L,) int64 right-padded, ``attention_mask`` (L,) int8."""
        shape = (self.max_length,)
        highest = max(self.vocab_size - 1, self.pad_id)
        return spaces.Dict(
            input_ids=spaces.Box(0, highest, shape, np.int64), attention_mask=spaces.Box(0, 1, shape, np.int8)
        )

    def action_space(self) -> spaces.Discrete | spaces.Dict:
        """A token, or a token with its log-probability under the policy that drew it (nats)."""
        token = spaces.Discrete(self.vocab_size)
        if self.action_mode == "token":
            return token
        return spaces.Dict(token=token, log_prob=spaces.Box(MIN_LOG_PROB, 0.0, (), np.float32))

    def checked_actions(self, action: Any, active: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions as arrays; those of rows that do not act are ignored and become 0.

        Args:
            action: tokens (B,), or a mapping with ``token`` and ``log_prob`` of shape (B,) each; a ``log_prob`` of
                shape (B, 1) is taken for (B,).
            active: Shape: (B,), bool.

        Returns: tokens (B,) int64; log-probabilities (B,) float64 or None in action mode "token".

        Raises:
            ActionError: shape, type or range is wrong.
        """
        if self.action_mode == "token":
            return self._tokens(action, active), None
        if not isinstance(action, Mapping) or set(action) != {"token", "log_prob"}:
            raise ActionError(
                'action: with action_mode="token_and_log_prob" must be {"token": ..., "log_prob": ...}, '
                f"got {action!r}"
            )
        return self._tokens(action["token"], active), _log_probs(action["log_prob"], active)

    def _tokens(self, value: Any, active: np.ndarray) -> np.ndarray:
        tokens = _array(value)
        if tokens.shape != active.shape or not np.issubdtype(tokens.dtype, np.integer):
            raise ActionError(
                f"action: must be {_count(active)} token id(s) of an integer type, shape {active.shape}; "
                f"got {value!r} of shape {tokens.shape} and type {tokens.dtype}"
            )
        outside = active & ((tokens < 0) | (tokens >= self.vocab_size))
        if outside.any():
            raise ActionError(
                f"action: a token id must lie in [0, {self.vocab_size}), got {int(tokens[outside][0])} "
                f"in row {int(np.flatnonzero(outside)[0])}"
            )
        return np.where(active, tokens, 0).astype(np.int64)


class TaskEnv:
    """Base of the single and the vector environment: the parts that may be looked at and replaced."""

    task: TextTask
    np_random: np.random.Generator
    _np_random: np.random.Generator | None
    _mdp: TextGenerationMDP
    _reward_model: RewardModel | None
    _draws: np.random.Generator | None

    @property
    def reference(self) -> Reference | None:
        """The frozen model, with ``.model`` and ``.tokenizer``."""
        return self.task.reference

    @property
    def sampling(self) -> SamplingConfig:
        """The rules that responses are drawn by, for ``policy.act(observation, env.sampling)``."""
        return self.task.sampling

    @property
    def reward_model(self) -> RewardModel | None:
        """Scores finished responses; may be replaced between episodes.

        A function, or an object that has only ``score``, comes back as the :class:`lm_gym.RewardModel` that wraps it.

        Raises:
            RewardModelError: what is assigned is no reward model.
            ConfigError: it needs a column that a prompt of the environment lacks.
        """
        return self._reward_model

    @reward_model.setter
    def reward_model(self, model: RewardModelLike | None) -> None:
        found = None if model is None else as_reward_model(model)
        columns_for(found, [prompt.columns for prompt in self.task.prompts.prompts])
        self._reward_model = found

    def _checked_prompts(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Prompts from outside. Raises: ConfigError: one lacks a column that the reward model needs."""
        columns_for(self._reward_model, [prompt.columns for prompt in prompts])
        return list(prompts)

    @property
    def kl_coef(self) -> float:
        """beta, in score units per nat; an adaptive controller sets it."""
        return self._mdp.kl_coef

    @kl_coef.setter
    def kl_coef(self, value: float) -> None:
        self._mdp.kl_coef = replace(self.task.reward, kl_coef=value).kl_coef

    def state_dict(self) -> dict[str, Any]:
        """beta and every random generator; episodes that are being stepped are not in it."""
        return {"kl_coef": self.kl_coef, "np_random": state_of(self.np_random), "draws": state_of(self._draws)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            ConfigError: it is no such state, or comes from an environment with another ``sampling.seed``; the
                environment is as it was.
        """
        state = require_state("environment", state, list(self.state_dict()))
        if (state["draws"] is None) != (self._draws is None):
            raise ConfigError(
                "environment state: must come from an environment with sampling.seed "
                f"{'unset' if self._draws is None else 'set'}, got one with it "
                f"{'unset' if state['draws'] is None else 'set'}"
            )
        kl_coef = replace(self.task.reward, kl_coef=state["kl_coef"]).kl_coef
        np_random = generator_of(state["np_random"], "environment state: np_random")
        draws = None if state["draws"] is None else generator_of(state["draws"], "environment state: draws")
        self.kl_coef, self._np_random, self._draws = kl_coef, np_random, draws

    def _new_draws(self) -> np.random.Generator | None:
        """The stream that rollouts draw from by ``sampling.seed``; None takes ``np_random``."""
        seed = self.task.sampling.seed
        return None if seed is None else np.random.default_rng(seed)


def _log_probs(value: Any, active: np.ndarray) -> np.ndarray:
    given = _array(value)
    if given.dtype.kind not in "fiu":
        raise ActionError(f"action: log_prob must be a real number, got {value!r} of type {given.dtype}")
    log_probs = given.astype(np.float64)
    if log_probs.shape == (*active.shape, 1):  # (1,) for (): networks give it so
        log_probs = log_probs[..., 0]
    if log_probs.shape != active.shape:
        raise ActionError(
            f"action: log_prob must hold {_count(active)} number(s), shape {active.shape}, got shape {log_probs.shape}"
        )
    wrong = active & ~((log_probs >= MIN_LOG_PROB) & (log_probs <= LOG_PROB_SLACK))  # a NaN is neither
    if wrong.any():
        raise ActionError(
            f"action: log_prob must be a log-probability in nats, from {MIN_LOG_PROB:g} to 0 (far below it would "
            f"be paid as a reward without end), got {log_probs[wrong][0]} in row {int(np.flatnonzero(wrong)[0])}; "
            "pass the log-probability under the policy that drew the token"
        )
    return np.where(active, log_probs, 0.0)


def _array(value: Any) -> np.ndarray:
    """The value as an array; a ragged one becomes an array of objects, which no check lets pass."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(value, dtype=object)


def _pad_id(reference: Reference | None, tokenizer: Any) -> int:
    if reference is not None:
        return reference.language_model.pad_id
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def checked_render_mode(mode: str | None) -> str | None:
    """Raises: UnknownSettingError: it is none of None, "ansi" and "human"."""
    if mode not in (None, "ansi", "human"):
        raise UnknownSettingError(f'render_mode: must be None, "ansi" or "human", got {mode!r}')
    return mode


def checked_seed(seed: Any) -> int | None:
    """The seed of ``reset``. Raises: ConfigError: it is neither None nor a whole number >= 0."""
    found: int | None = checked("reset: seed", seed, Whole | None)
    return found


def checked_options(options: Any, known: Sequence[str]) -> Mapping[str, Any]:
    """The options of ``reset``; None is none.

    Raises:
        ConfigError: they are no mapping.
        UnknownSettingError: one of them is none of those that are known.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f'reset: options must be None or a dict, such as {{"prompt": text}}, got {options!r}')
    refuse_unknown("reset: options", options or {}, known)
    return options or {}


def _count(active: np.ndarray) -> int:
    return int(np.prod(active.shape))


def _check_context(reference: Reference | None, max_prompt_tokens: int, max_new_tokens: int) -> None:
    if reference is not None and not reference.fits(max_prompt_tokens, max_new_tokens):
        raise ConfigError(
            "max_new_tokens: prompt and response must fit the model's "
            f"{reference.language_model.positions}, got max_prompt_tokens = {max_prompt_tokens} plus "
            f"max_new_tokens = {max_new_tokens}; lower one of them (a long-rope model counts the positions of its "
            "original context)"
        )
