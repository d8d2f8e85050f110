"""The run folder of an agent's training: the identity of the run, and the content of its checkpoints.

A run folder holds ``metrics.jsonl``, ``tensorboard/``, ``best/`` (the policy with the highest mean return on held-out
prompts) and, while the run goes on, ``checkpoints/checkpoint-<n>`` after n iterations, each with the policy
(``policy/``, stored once) and everything else that the next iteration depends on (``state.pt``). A finished run has
``policy/`` in place of its checkpoints. All of these policies are folders that ``from_pretrained`` loads.

Knows: files and states. Does not know: when to train, evaluate or save.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lm_gym.envs.evaluation import Evaluation
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.kl_control import AdaptiveKL
from lm_gym.prompts import Prompt
from lm_gym.runs.folder import Run, Stateful
from lm_gym.runs.identity import RunIdentity
from lm_gym.scoring.protocol import RewardModel
from lm_gym.tools.digests import digest_json, digest_tensors
from lm_gym.tools.files import reading

from .callbacks import Agent, Callback
from .policy import LanguageModelPolicy

__all__ = ["BEST", "POLICY", "TrainingState", "training_identity"]

POLICY = "policy"
BEST = "best"
STATE = "state.pt"
logger = logging.getLogger(__name__)


def training_identity(
    agent: Agent,
    env: TextGenerationVectorEnv,
    *,
    iterations: int,
    eval_prompts: Sequence[Prompt],
    eval_every: int,
    adaptive_kl: AdaptiveKL | None,
    seed: int | None,
) -> RunIdentity:
    """Everything that decides what a training run makes.

    The agent's class and settings, the rules of the environment, the length, the seed, the controller and the held-out
    prompts (they choose the best policy); and digests of the starting weights with the value head, of the reference,
    of the prompts, and of the reward model (:meth:`lm_gym.RewardModel.identity`).
    """
    task, adapter = env.task, agent.policy.language_model.adapter
    sizes = {} if adapter is None else {name: one for name, one in adapter.settings().items() if name != "targets"}
    return RunIdentity(
        kind="agent training",
        settings={
            "agent": type(agent).__name__,
            **agent.settings(),
            **({"lora": sizes} if sizes else {}),
            "iterations": iterations,
            "seed_of_env": seed,
            "eval_every": eval_every if eval_prompts else None,
            "adaptive_kl": None if adaptive_kl is None else asdict(adaptive_kl),
            "env": {
                # How long a reward model may take changes nothing that is made; a failed run is resumed with more.
                "reward": asdict(replace(task.reward, score_timeout_s=None)) | {"kl_coef": env.kl_coef},
                "sampling": asdict(task.sampling),
                "num_envs": env.num_envs,
                "max_prompt_tokens": task.prompts.max_prompt_tokens,
            },
        },
        inputs={
            "policy": _policy_digest(agent.policy),
            "reference": "none" if env.reference is None else env.reference.digest(),
            "prompts": _prompts_digest(task.prompts.prompts),
            "eval_prompts": _prompts_digest(eval_prompts),
            "reward model": "none" if env.reward_model is None else _reward_model_identity(env.reward_model),
        },
    )


def _policy_digest(policy: LanguageModelPolicy) -> str:
    adapter = policy.language_model.adapter
    parts = {part: digest_tensors(tensors.items()) for part, tensors in policy.state_dict().items()}
    return digest_json(parts if adapter is None else {**parts, "base": adapter.base_sha256, **adapter.settings()})


def _reward_model_identity(model: RewardModel) -> str:
    """Identity of a reward model, with its normaliser."""
    who = model.identity() or f"{model.name}, content unknown"
    return who if model.normalizer is None else f"{who}, {model.normalizer}"


def _prompts_digest(prompts: Sequence[Prompt]) -> str:
    return digest_json([prompt.key() for prompt in prompts])


class TrainingState:
    """Everything that changes while an agent is trained, in memory and in checkpoints."""

    def __init__(
        self,
        agent: Agent,
        env: TextGenerationVectorEnv,
        controller: AdaptiveKL | None,
        callbacks: Sequence[Callback],
        run: Run | None,
    ) -> None:
        """Args:
        callbacks: those of the caller, who may not know of any other: their places in it name their states.
        run: the open folder; None keeps nothing.
        """
        self.iterations_done = 0
        self.best_iteration: int | None = None
        self._best_paid, self._best_kl = -math.inf, 0.0
        self._policy = agent.policy
        self._run = run
        named = {"agent": agent, "env": env, "controller": controller}
        named |= {f"callback {place} ({type(one).__name__})": one for place, one in enumerate(callbacks)}
        self._parts: dict[str, Stateful] = {name: one for name, one in named.items() if isinstance(one, Stateful)}
        self._kept: dict[str, Any] | None = None
        self._saved = 0

    @property
    def is_kept(self) -> bool:
        """True if there is a run folder."""
        return self._run is not None

    def keep(self) -> None:
        """Copy the state after an iteration to the memory of the host, for :meth:`go_back`."""
        if self._run is not None:
            self._kept = {"policy": _copied(self._policy.state_dict()), **_copied(self._state())}

    def go_back(self) -> None:
        """Return to the state that was kept last, after an iteration failed; without a run nothing is kept."""
        if self._kept is not None:
            self._policy.load_state_dict(self._kept["policy"])
            self._take(self._kept)

    def checkpoint(self) -> None:
        """Write a checkpoint, unless the newest one holds this state, or nothing is done yet."""
        if self._run is None or self.iterations_done == self._saved:
            return
        with self._run.checkpoint(self.iterations_done) as folder:
            self._policy.save_pretrained(folder / POLICY)
            torch.save(self._state(), folder / STATE)
        self._saved = self.iterations_done

    def restore(self) -> None:
        """Take up the newest whole checkpoint, or the policy of a finished run; a run without either starts anew."""
        if self._run is None:
            return
        if self._run.result is not None:
            self._policy.load_weights(self._run.folder / POLICY)
            self.iterations_done = int(self._run.result["iterations"])
            self.best_iteration = self._run.result["best_iteration"]
            return
        if (found := self._run.newest_checkpoint()) is not None:
            self._policy.load_weights(found.folder / POLICY)
            path = found.folder / STATE
            with reading(path, remedy="delete its checkpoint: the one before is taken"):
                state = torch.load(path, map_location=self._policy.device, weights_only=True)
            self._take(state)  # a part that fails to take its state is no damage of the file, and tells by itself
            for name in sorted(state["parts"].keys() ^ self._parts.keys()):
                fate = "is in no part of this run, and is left" if name in state["parts"] else "is not in it; it is new"
                logger.warning("checkpoint %s: the state of the %s %s", found.folder, name, fate)
            self._saved = self.iterations_done

    def finish(self) -> None:
        """Leave the policy in the run folder and mark the run as finished."""
        if self._run is not None:
            self._policy.save_pretrained(self._run.folder / POLICY)
            self._run.finish({"iterations": self.iterations_done, "best_iteration": self.best_iteration})

    def is_best(self, found: Evaluation, kl_coef: float) -> bool:
        """True if the policy has a higher return than the best one so far, both at the same coefficient.

        A controller moves it, and returns that were paid at two coefficients cannot be compared.
        """
        return found.episode_return > self._best_paid - kl_coef * self._best_kl

    def save_best(self, found: Evaluation, kl_coef: float) -> None:
        """Note and save the policy as the best one so far."""
        self._best_kl = 0.0 if math.isnan(found.kl) else found.kl
        self._best_paid, self.best_iteration = found.episode_return + kl_coef * self._best_kl, self.iterations_done - 1
        if self._run is not None:
            self._policy.save_pretrained(self._run.folder / BEST)

    def _state(self) -> dict[str, Any]:
        return {
            "iterations_done": self.iterations_done,
            "best_paid": self._best_paid,
            "best_kl": self._best_kl,
            "best_iteration": self.best_iteration,
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
        }

    def _take(self, state: Mapping[str, Any]) -> None:
        self.iterations_done = int(state["iterations_done"])
        self._best_paid, self._best_kl = state["best_paid"], state["best_kl"]
        self.best_iteration = state["best_iteration"]
        for name, part in self._parts.items():
            if name in state["parts"]:  # a callback may be new
                part.load_state_dict(state["parts"][name])


def _copied(value: Any) -> Any:
    """A copy of a state that later steps do not change, with tensors in the host's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(one) for one in value)
    return copy.deepcopy(value)
