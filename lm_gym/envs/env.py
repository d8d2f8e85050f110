"""Text generation as a ``gymnasium.Env``: one action is one token. A thin view on one row of the MDP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from lm_gym.envs.info import InfoKeys, shown_info, step_info
from lm_gym.envs.rendering import Transcript
from lm_gym.envs.task import TaskEnv, TextTask, checked_options, checked_render_mode, checked_seed
from lm_gym.errors import EpisodeOverError
from lm_gym.prompts import Prompt
from lm_gym.scoring.adapters import RewardModelLike
from lm_gym.tools.settings import checked

__all__ = ["TextGenerationEnv"]

Observation = dict[str, np.ndarray]


class TextGenerationEnv(TaskEnv, gymnasium.Env[Observation, Any]):
    """A prompt is drawn, tokens are appended, the finished text is scored.

    Observation: ``input_ids`` (L,) int64, right-padded, and ``attention_mask`` (L,) int8.
    Action: a token id, or ``{"token", "log_prob"}``; see ``action_mode``.
    Reward: ``-kl_coef * (log pi - log pi_ref) + [last token] * paid score``; with ``action_mode="token"`` the env does
    not see pi and leaves its term out (``docs/concepts/action_modes.md`` says which agents that is exact for).
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": ["ansi", "human"],
        "render_fps": 4,
    }

    def __init__(
        self,
        task: TextTask,
        reward_model: RewardModelLike | None = None,
        *,
        render_mode: str | None = None,
        info_keys: InfoKeys = "all",
    ) -> None:
        """Args:
        task: prompts, reference and rules; ``TextTask.of`` makes one.
        reward_model: scores finished responses; None pays a score of 0. Columns that it asks for come from the
            prompts' rows.
        render_mode: None, "ansi" or "human".
        info_keys: "all", or "numeric" for a fixed set of numbers and no text (see :func:`lm_gym.envs.info.shown_info`).

        Raises:
            ConfigError, RewardModelError: the reward model is none, or does not fit the prompts.
            UnknownSettingError: the render mode does not exist.
        """
        self.task = checked("task", task, TextTask)
        self.reward_model = reward_model
        self.observation_space = self.task.observation_space()  # type: ignore[assignment]
        self.action_space = self.task.action_space()
        self.render_mode = checked_render_mode(render_mode)
        self._info_keys = checked("info_keys", info_keys, InfoKeys)
        self._draws = self._new_draws()
        self._mdp = self.task.mdp(1)
        self._transcript = Transcript(self.task.response_text())

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a prompt with ``self.np_random`` and begin a response.

        Args:
            seed: starts two streams anew: ``np_random``, which prompts are drawn with, and that of ``sampling.seed``,
                which rollouts draw by; None lets both go on. The draws of ``policy.act`` are the policy's, and go on
                whatever the seed.
            options: ``{"prompt": text}`` sets the prompt instead of drawing one; a row (``{"prompt": text, "answer":
                ...}``) gives the columns too.

        Returns: observation, and ``info["prompt"]``.

        Raises:
            PromptError: the prompt cannot be used.
            ConfigError: it lacks a column that the reward model needs, or the options are no dict.
        """
        super().reset(seed=checked_seed(seed))
        if seed is not None:
            self._draws = self._new_draws()
        [prompt] = self._checked_prompts(
            [chosen_prompt(self.task, checked_options(options, ("prompt",)), self.np_random)]
        )
        self._mdp.start([0], [prompt])
        self._transcript.start(prompt)
        self._render_if_human()
        return self._observation(), shown_info({"prompt": prompt.text}, self._info_keys)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Returns: observation, reward (score units), terminated, truncated, info (see :mod:`lm_gym.envs.info`).

        Raises:
            EpisodeOverError: the episode has ended, or none was begun.
            ActionError: the action lies outside the action space.
            RewardModelError: the reward model failed; the episode is as it was before the call.
            UnsupportedModelError: the reference has no finite log-probability for the token; likewise.

        Whatever the reference's own pass raises (out of memory, an interrupt) ends the episode: call ``reset()``.
        """
        if not self._mdp.running[0]:
            raise EpisodeOverError("step: needs a running episode, and this one has ended or never begun; call reset()")
        tokens, log_probs = self.task.checked_actions(_batch_of_one(action), np.ones(1, dtype=bool))
        transition = self._mdp.step(tokens, log_probs, np.ones(1, dtype=bool), self.reward_model)
        info = step_info(transition, 0, None if log_probs is None else float(log_probs[0]))
        reward = float(transition.rewards[0])
        if self.render_mode is not None:
            self._transcript.add(int(tokens[0]), info)
        self._render_if_human()
        return (
            self._observation(),
            reward,
            bool(transition.terminated[0]),
            bool(transition.truncated[0]),
            shown_info(info, self._info_keys),
        )

    def action_masks(self) -> np.ndarray:
        """Actions that an agent may be held to: the reference's support under the env's own rules.

        These are the tokens that top_k, top_p, min_p and min_new_tokens keep of the reference's distribution in this
        state, as in NLPO (Ramamurthy et al. 2022, arXiv 2210.01241, section 4) with a mask policy that stays the
        reference. ``MaskablePPO`` of sb3-contrib asks for them by this name. ``step`` refuses no token outside.

        Returns: Shape: (V,), bool; all True where nothing truncates, or no episode runs.

        Raises:
            ConfigError: there is no reference.
        """
        mask: np.ndarray = self._mdp.reference_support()[0]
        return mask

    def render(self) -> str | None:
        """The prompt, the response coloured by KL, and the score ("ansi": as a string)."""
        return self._transcript.text() if self.render_mode == "ansi" else None

    def _render_if_human(self) -> None:
        if self.render_mode == "human":
            self._transcript.show()

    def _observation(self) -> Observation:
        return {
            "input_ids": self._mdp.input_ids[0].copy(),
            "attention_mask": self._mdp.attention_mask[0].copy(),
        }


def chosen_prompt(task: TextTask, options: Mapping[str, Any] | None, rng: np.random.Generator) -> Prompt:
    """The prompt that ``options["prompt"]`` names, else one drawn by ``rng``."""
    options = options or {}
    if options.get("prompt") is None:
        return task.prompts.draw(rng)
    given = task.prompts.load_alike(
        [options["prompt"]],
        task.tokenizer,
        max_prompt_tokens=task.prompts.max_prompt_tokens,
        vocab_size=task.vocab_size,
    )
    return given[0]


def _batch_of_one(action: Any) -> Any:
    """A single action as a batch of one; whatever is no scalar keeps its shape and is refused by the check."""
    if isinstance(action, Mapping):
        return {key: _batch_of_one(value) for key, value in action.items()}
    array = np.asarray(action)
    return array.reshape(1) if array.ndim == 0 else array[None]
