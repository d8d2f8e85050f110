"""A language model as the policy of Stable-Baselines3's own PPO and A2C.

Knows: which of SB3's parts the trunk, the LM head and the value head are. Acting, evaluating and saving are SB3's own
code. Does not know: how states are computed (:mod:`.prefixes`) and how rewards are paid.

Shapes: B = states, H = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from lm_gym.errors import ConfigError, UnsupportedModelError
from lm_gym.models.language_model import DType, LanguageModel
from lm_gym.models.lora import LoraSettings
from lm_gym.tools.settings import checked

from ..policy import LanguageModelPolicy
from ..policy_checks import check_learns_in_float32
from .prefixes import PrefixStates
from .token_space import TokenSpace

__all__ = ["LanguageModelActorCriticPolicy"]


class _TokenLogits(nn.Module):
    """SB3's action net: the LM head at the environment's temperature. Its weights are counted with the trunk's."""

    def __init__(self, language_model: LanguageModel, temperature: float) -> None:
        super().__init__()
        self._language_model = language_model
        self._temperature = temperature

    def forward(self, states: Tensor) -> Tensor:
        """Args: states (B, H). Returns: Shape: (B, V), float32."""
        return self._language_model.logits(states) / self._temperature


class LanguageModelActorCriticPolicy(ActorCriticPolicy):
    """The trunk is SB3's feature extractor, the LM head its action net, a value head (zero at the start) its critic::

        PPO(LanguageModelActorCriticPolicy, SB3VecEnv(env), gamma=1.0, policy_kwargs={"model": folder})

    Temperature and vocabulary are the environment's: they come with its action space. The ratio of PPO is the model's
    own, so sampling that truncates is refused: SB3's buffer does not keep the set that a token was drawn from.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Any,
        model: str | Path,
        *,
        tokenizer: str | None = None,
        dtype: DType = "auto",
        lora: LoraSettings | None = None,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """SB3 makes the policy; everything after the schedule comes from ``policy_kwargs``.

        Args:
            observation_space: of the environment.
            action_space: that of :class:`lm_gym.agents.sb3.SB3VecEnv`.
            lr_schedule: SB3's.
            model: handle of a causal language model (see :meth:`lm_gym.agents.LanguageModelPolicy.from_pretrained`),
                stored by SB3 in the place of weights, which it saves by themselves.
            tokenizer: of a model that has none of its own.
            dtype: "auto" trains float32 weights under bf16 autocast where the hardware has it.
            lora: low-rank updates that learn, and nothing else of the model does; needs peft.
            use_sde: must be False: tokens take no noise.
            optimizer_class, optimizer_kwargs: SB3's.

        Raises:
            ConfigError: the action space brings no rules, those of another action mode or of truncated sampling, or a
                setting is of another kind.
            UnsupportedModelError: weights that learn are not float32, the model has another vocabulary than the
                environment, or it is an encoder-decoder.
            ModelLoadError: nothing loads from the handle.
        """
        name = type(self).__name__
        self.temperature = _checked_space(name, action_space).sampling.temperature
        self.model_handle: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "dtype": dtype, "lora": lora}
        if checked(f"{name}: use_sde", use_sde, bool):
            raise ConfigError(f"{name}: use_sde must be False, since noise is for continuous actions, got True")
        policy = LanguageModelPolicy.from_pretrained(model, tokenizer=tokenizer, dtype=dtype, lora=lora)
        check_learns_in_float32(f"{name}: model", policy.model)
        if policy.vocab_size != action_space.n:  # type: ignore[attr-defined]
            raise UnsupportedModelError(
                f"{name}: model {model!r} must share the environment's vocabulary of "
                f"{action_space.n} tokens, got {policy.vocab_size}; start policy and reference from the same base model"  # type: ignore[attr-defined]
            )
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[],
            ortho_init=False,
            features_extractor_class=PrefixStates,
            features_extractor_kwargs={"policy": policy},
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )

    @property
    def language_model_policy(self) -> LanguageModelPolicy:
        """The same weights as a policy of this library: ``save_pretrained``, ``respond``, ``lm_gym.evaluate``."""
        policy: LanguageModelPolicy = self.features_extractor.policy
        return policy

    def refresh(self) -> None:
        """Forget what was computed with older weights; SB3's own ``learn`` and ``load`` need nobody to call it."""
        self.features_extractor.refresh()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take weights back."""
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        finally:
            self.refresh()

    def _build(self, lr_schedule: Any) -> None:
        """Called by SB3 once the feature extractor is made."""
        self._build_mlp_extractor()
        policy = self.language_model_policy
        self.action_net = _TokenLogits(policy.language_model, self.temperature)
        self.value_net = policy.value_head
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self.model_handle,
        }


def _checked_space(name: str, space: Any) -> TokenSpace:
    """Raises: ConfigError: a policy cannot learn under the rules that the space brings, or it brings none."""
    if not isinstance(space, TokenSpace):
        raise ConfigError(
            f"{name}: needs the action space of SB3VecEnv, which brings the environment's sampling rules, got {space}; "
            "make the environment by SB3VecEnv(gymnasium.make_vec(id, num_envs=...))"
        )
    if space.action_mode != "token_and_log_prob":
        raise ConfigError(
            f'{name}: must act in an environment with action_mode="token_and_log_prob", where its log-probabilities '
            f"are paid as the exact KL, got action_mode={space.action_mode!r}; make the environment in that mode"
        )
    if space.sampling.truncates:
        raise ConfigError(
            f"{name}: the environment must not truncate sampling (top_k, top_p, min_p, min_new_tokens), since the "
            "ratio of a token needs the set that it was drawn from, and SB3's buffer keeps none; leave them at their "
            "defaults, or train with lm_gym.agents.PPO"
        )
    return space
