"""Regression of the policy onto the optimum in closed form: A*-PO and VIMPO.

At the optimum of ``E[R] - beta KL(pi || pi_ref)`` every response solves (Rafailov et al. 2023, arXiv:2305.18290, eq. 5)

    beta log pi*(y|x) / pi_ref(y|x) = R(y) - V*(x),    V*(x) = beta log E_ref[exp(R / beta)],

so the squared error of this equation over sampled responses is a loss whose minimum is the optimum. The two methods
differ in where V* of the prompt comes from, and VIMPO may add an actor. On fresh responses the gradient is beta times
that of REINFORCE with V*(x) as the baseline: what it adds is the current policy in the error, at every step.

A*-PO (Brantley et al. 2025, arXiv:2505.20686): V* is estimated once per prompt from N responses of the reference, by
the logarithm of a mean of exponentials. The estimate is too low on average (Jensen), the more so the smaller beta is
beside the spread of R. On the policy's own responses an error in V* is that of a baseline: noise, at the same fixed
point. The exact V* is a noisy baseline too, while the policy is far below it.

VIMPO (Kang et al. 2026, arXiv:2606.20008): the policy holds its own values by the recurrence
``V(s') = V(s) + beta log pi(a|s) / pi_ref(a|s) - r``, which must end at 0; the value of the prompt is the mean over its
group of what the recurrence asks for. Departures: the published recurrence takes beta times the exact KL of every state
out of the log-ratio, so that its values know no later KL and its fixed point charges each token for its own KL alone;
here they are the soft values of the environment (the authors' code has both), whose fixed point is the optimum. The
published actor, PPO's clip on the log-ratios that are still to come, draws away from the reference whatever the reward:
its weight is 0 unless it is set.

Shapes: B = episodes, T = longest response.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lm_gym.envs.rollout import PhaseTimer, collect
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.models.generate import LanguageModelSampler
from lm_gym.policy import PolicyEvaluation, Sampler
from lm_gym.processes import Processes
from lm_gym.prompts import Prompt
from lm_gym.runs.generators import require_state
from lm_gym.tools.settings import Count, NotNegative, Positive, Probability, Several, settings

from ..metrics import episode_metrics
from ..policy import LanguageModelPolicy
from ..update.baselines import group_statistics, uniform_share
from ..update.config import BatchConfig
from ..update.functional import clipped_policy_loss, discounted_returns, masked_whiten
from ..update.passes import PassesAgent, response_log_ratios

__all__ = ["VIMPO", "AStarPO", "AStarPOConfig", "VIMPOConfig", "soft_value"]


def soft_value(returns: np.ndarray, beta: float) -> float:
    """``beta log mean exp(R / beta)``, the optimal value of a prompt, from responses of the reference.

    Args: returns: what they were paid, without a KL; shape (N,). beta: in score units per nat.
    """
    return float(beta * (np.logaddexp.reduce(returns / beta) - np.log(len(returns))))


class ClosedFormAgent(PassesAgent):
    """An agent that learns the equation above by its squared error, given the value of each prompt."""

    needs_log_ratio = True

    def regressed(
        self, episodes: Episodes, values: np.ndarray, counted: np.ndarray, *, progress: float
    ) -> dict[str, float]:
        """Learn the equation, and return the metrics of batch and update.

        Args:
            episodes: the batch.
            values: of the prompts. Shape: (B,), float64.
            counted: True = learned from. Shape: (B,), bool.
            progress: share of the run that is done.
        """
        device = self.policy.device
        paid = torch.from_numpy(episodes.rewards_without_kl.sum(axis=1) - values).to(device, torch.float32)
        beta = torch.from_numpy(episodes.kl_coef).to(device, torch.float32)
        actor = self.actor_loss(episodes, counted)

        def loss(part: Episodes, now: PolicyEvaluation, rows: np.ndarray) -> dict[str, Tensor]:
            index = torch.from_numpy(rows).to(device)
            squares = (beta[index] * response_log_ratios(part, now) - paid[index]) ** 2
            added = torch.zeros_like(squares) if actor is None else actor(now, index)
            return {"policy_loss": 0.5 * squares + added, "regression_error": squares}

        items = np.flatnonzero(counted)[:, None]
        found = self._passes(episodes, items, loss, ("policy_loss", "regression_error"), progress=progress)
        if "regression_error" in found:
            found["regression_error"] **= 0.5
        return {**episode_metrics(episodes, processes=self.processes), **found}

    def actor_loss(self, episodes: Episodes, counted: np.ndarray) -> Any:
        """What is added to the loss of each response, a function of (evaluation, rows); None adds nothing."""
        return None


@settings
class AStarPOConfig(BatchConfig):
    """Settings of :class:`AStarPO`."""

    value_samples: Count = 8
    """Responses of the reference to each prompt, drawn once, that its value is estimated from."""
    value_kl_coef: Positive | None = None
    """Beta of that estimate; None is the environment's. A larger one is steadier at few samples (the paper has .5 here
    and .001 in the regression)."""


class AStarPO(ClosedFormAgent):
    """A*-PO: optimal values from the reference's responses, then regression on the policy's own."""

    config_type: ClassVar[type[AStarPOConfig]] = AStarPOConfig
    needs_baselines = True

    def __init__(
        self,
        policy: LanguageModelPolicy,
        config: AStarPOConfig | None = None,
        *,
        sampler: Sampler | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Args: see :class:`LearningAgent`."""
        super().__init__(policy, config, sampler=sampler, processes=processes)
        self._paid: dict[str, Tensor] = {}

    def collect(self, env: TextGenerationVectorEnv, timer: PhaseTimer) -> tuple[Episodes, dict[str, float]]:
        """Responses, with the value of each prompt as their baseline: NaN where the reference's got no score."""
        samples = self.config.samples_per_prompt
        prompts = env.draw_prompts(self.config.episodes_per_iteration // samples)
        self._learn_values(env, prompts, timer)
        beta = self.config.value_kl_coef or env.kl_coef
        paid = [self._paid[prompt.key()].numpy() for prompt in prompts]
        values = [soft_value(one, beta) if len(one) else np.nan for one in paid]
        episodes = env.rollout_on(self.sampler, prompts, samples_per_prompt=samples, timer=timer)
        return replace(episodes, baselines=np.repeat(values, samples)), {}

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """See :meth:`LearningAgent.update`; the episodes are those of :meth:`collect`, with baselines."""
        assert episodes.baselines is not None
        counted = episodes.scored & np.isfinite(episodes.baselines)
        return self.regressed(episodes, episodes.baselines, counted, progress=progress)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, generator of minibatches, and what the reference's responses to each prompt were paid."""
        return super().state_dict() | {"paid": dict(self._paid)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave. Raises: ConfigError: it is none of such an agent."""
        state = require_state("AStarPO", state, ("paid",))
        super().load_state_dict(state)
        self._paid = {key: paid.cpu() for key, paid in state["paid"].items()}

    def _learn_values(self, env: TextGenerationVectorEnv, prompts: list[Prompt], timer: PhaseTimer) -> None:
        """Score responses of the reference to those prompts that have not been met."""
        new = list({prompt.key(): prompt for prompt in prompts if prompt.key() not in self._paid}.values())
        if not new:
            return
        assert env.reference is not None
        sampler, count = LanguageModelSampler(env.reference.language_model), self.config.value_samples
        seed = int(env.np_random.integers(2**31))
        found = collect(
            env.task,
            sampler,
            new,
            env.reward_model,
            kl_coef=0.0,
            seed=seed,
            samples_per_prompt=count,
            timer=timer,
        )
        returns = found.rewards.sum(axis=1)
        for number, prompt in enumerate(new):
            rows = np.arange(number * count, (number + 1) * count)
            self._paid[prompt.key()] = torch.from_numpy(returns[rows[found.scored[rows]]])


@settings
class VIMPOConfig(BatchConfig):
    """Settings of :class:`VIMPO`."""

    samples_per_prompt: Several = 8
    """Responses to each prompt that is drawn; their mean is the value of the prompt."""
    actor_coef: NotNegative = 0.0
    """Weight of the actor (the paper has .005), which draws the policy past the optimum."""
    actor_lambda: Probability = 1.0
    """Lambda of the actor's advantage."""
    clip: Positive = 0.2
    """Epsilon of the actor's ratio."""


class VIMPO(ClosedFormAgent):
    """Value-implicit policy optimisation, with the soft values of the environment."""

    config_type: ClassVar[type[VIMPOConfig]] = VIMPOConfig

    def _updated(self, episodes: Episodes, *, progress: float) -> dict[str, float]:
        """See :meth:`LearningAgent.update`."""
        counted = episodes.scored
        size, values, _ = group_statistics(episodes.rewards.sum(axis=1), episodes.group, counted)
        found = self.regressed(episodes, values, counted & (size > 1), progress=progress)
        return {**found, "uniform_groups": uniform_share(episodes, self.processes)}

    def actor_loss(self, episodes: Episodes, counted: np.ndarray) -> Any:
        """PPO's clipped loss, where beta times a token's log-ratio to the reference is its temporal difference."""
        if self.config.actor_coef == 0:
            return None
        config, device = self.config, self.policy.device
        old = self.policy.log_probs_and_values_in_batches(episodes, config.max_batch_tokens, values=False).log_probs
        mask = torch.from_numpy(episodes.response_mask & counted[:, None]).to(device)
        reference, beta = (
            torch.from_numpy(one).to(device, torch.float32) for one in (episodes.ref_log_probs, episodes.kl_coef)
        )
        differences = torch.where(mask, beta[:, None] * (old - reference), 0.0)
        nothing = differences.new_zeros(len(episodes))
        advantages = discounted_returns(differences, mask, nothing, gamma=config.actor_lambda)
        advantages = masked_whiten(advantages, mask, processes=self.processes)

        def loss(now: PolicyEvaluation, index: Tensor) -> Tensor:
            width = now.log_probs.shape[1]
            weights, counts = advantages[index, :width], mask[index, :width]
            log_ratio = torch.where(counts, now.log_probs - old[index, :width], 0.0)
            each, _ = clipped_policy_loss(log_ratio, weights, low=config.clip, high=config.clip)
            return config.actor_coef * torch.where(counts, each, 0.0).sum(1)

        return loss
