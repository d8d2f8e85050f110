"""Text generation as a ``gymnasium.vector.VectorEnv``: B rows, one reference pass per step, and the fused rollout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from lm_gym.envs.env import Observation, chosen_prompt
from lm_gym.envs.info import InfoKeys, shown_info, step_info
from lm_gym.envs.mdp import Transition
from lm_gym.envs.rendering import Transcript
from lm_gym.envs.rollout import PhaseTimer, collect, sampler_of
from lm_gym.envs.task import (
    TaskEnv,
    TextTask,
    checked_options,
    checked_render_mode,
    checked_seed,
)
from lm_gym.episodes import Episodes
from lm_gym.errors import ConfigError, EpisodeOverError, PromptError, UnsupportedModelError
from lm_gym.policy import Policy, Sampler
from lm_gym.prompts import Prompt
from lm_gym.runs.generators import generator_of, require_state, state_of
from lm_gym.scoring.adapters import RewardModelLike
from lm_gym.tools.settings import Count, Whole, checked, shown

__all__ = ["TextGenerationVectorEnv"]

ROLLOUT_STREAM = 1
"""Number of the random stream that rollouts draw from, among those of one seed."""
VectorStep = tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class TextGenerationVectorEnv(TaskEnv, VectorEnv[Observation, Any, np.ndarray]):
    """B episodes side by side; row i behaves as a :class:`lm_gym.TextGenerationEnv` reset with the same seed."""

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own form)
        "render_modes": ["ansi", "human"],
        "render_fps": 4,
    }

    def __init__(
        self,
        task: TextTask,
        reward_model: RewardModelLike | None = None,
        *,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        info_keys: InfoKeys = "all",
    ) -> None:
        """Args:
        task, reward_model, render_mode, info_keys: see :class:`lm_gym.TextGenerationEnv`, with the same errors.
        num_envs: rows, B.
        autoreset_mode: what follows the end of a row's episode; see Gymnasium's vector documentation.
        """
        num_envs = checked("num_envs", num_envs, Count)
        self.task = checked("task", task, TextTask)
        self.num_envs = num_envs
        self.reward_model = reward_model
        self.autoreset_mode = _checked_autoreset(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self.task.observation_space()
        self.single_action_space = self.task.action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = checked_render_mode(render_mode)
        self._info_keys = checked("info_keys", info_keys, InfoKeys)
        self._draws = self._new_draws()
        self._mdp = self.task.mdp(num_envs)
        self._row_rngs: list[np.random.Generator | None] = [None] * num_envs
        self._transcripts = [Transcript(self.task.response_text()) for _ in range(num_envs)]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every row, or in those of ``options["reset_mask"]``.

        Args:
            seed: an int seeds row i with ``seed + i``; a sequence has one seed (or None) per row. Row 0's seed also
                starts the stream of rollouts, which is none of the rows' streams, and that of ``sampling.seed`` anew.
                The draws of ``policy.act`` are the policy's, and go on whatever the seed.
            options: ``reset_mask`` (B,) bool, ``prompt`` (one text or row for all); never changed.

        Returns: observations (B, L) and ``info["prompt"]`` with its ``_prompt`` mask.

        Raises:
            PromptError: the prompt cannot be used.
            ConfigError: it lacks a column that the reward model needs, or a seed or an option is of the wrong kind.
        """
        mask = _reset_mask(options, self.num_envs)
        rows = np.flatnonzero(mask)
        self._seed_rows(seed, rows)
        info: dict[str, Any] = {}
        for row, row_info in zip(rows, self._start(rows, options), strict=True):
            info = self._add_info(info, shown_info(row_info, self._info_keys), int(row))
        return self._observation(), info

    def step(self, actions: Any) -> VectorStep:
        """Append one token to every running row.

        Returns: observations (B, L), rewards (B,) float64, terminated (B,), truncated (B,), info.

        Raises:
            EpisodeOverError: before ``reset``, or on an ended row with autoreset disabled.
            ActionError, RewardModelError, UnsupportedModelError: see :meth:`lm_gym.TextGenerationEnv.step`.
        """
        active = self._mdp.running.copy()
        self._check_running(active)
        tokens, log_probs = self.task.checked_actions(actions, active)
        transition = self._mdp.step(tokens, log_probs, active, self.reward_model)
        if self.render_mode is not None:
            self._write_transcripts(transition, tokens, active)
        infos: list[dict[str, Any]] = [
            step_info(transition, row, None if log_probs is None else float(log_probs[row])) if active[row] else {}
            for row in range(self.num_envs)
        ]
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._restart(np.flatnonzero(~active), infos)
        elif self.autoreset_mode is AutoresetMode.SAME_STEP:
            ended = np.flatnonzero(transition.terminated | transition.truncated)
            final = self._observation()
            for row in ended:
                row_obs = {key: value[row] for key, value in final.items()}
                final_info = shown_info(infos[row], self._info_keys)
                info = self._add_info(info, {"final_obs": row_obs, "final_info": final_info}, int(row))
            self._restart(ended, infos)
        for index, row_info in enumerate(infos):
            info = self._add_info(info, shown_info(row_info, self._info_keys), index)
        return self._observation(), transition.rewards, transition.terminated, transition.truncated, info

    def action_masks(self) -> np.ndarray:
        """Actions that an agent may be held to: the reference's support under the env's own rules.

        See :meth:`lm_gym.TextGenerationEnv.action_masks`. Returns: Shape: (B, V), bool.

        Raises:
            ConfigError: there is no reference.
        """
        return self._mdp.reference_support()

    def rollout(
        self,
        policy: Policy | Sampler,
        num_episodes: int | None = None,
        *,
        samples_per_prompt: int = 1,
        timer: PhaseTimer | None = None,
    ) -> Episodes:
        """Whole episodes at once: the policy decodes with its own cache, the reference is one teacher-forced pass,
        the reward model one call. It pays what ``step`` would for the same tokens and
        log-probabilities in action mode "token_and_log_prob", in either mode of the env: a rollout knows the policy.

        Rows that are being stepped are left alone. Prompts come from ``self.np_random``.

        Args:
            policy: the policy, which brings its sampler, or a sampler.
            num_episodes: None means ``num_envs``.
            samples_per_prompt: episodes of each prompt that is drawn; they share a group and stand side by side.
            timer: collects seconds by phase.

        Raises:
            UnsupportedModelError: policy and reference have different vocabularies, or the sampler does not keep the
                env's rules or does not store the keep sets of a truncated distribution.
            RewardModelError: the reward model failed.
        """
        count: int = checked("rollout: num_episodes", num_episodes, Count | None) or self.num_envs
        samples_per_prompt = checked("rollout: samples_per_prompt", samples_per_prompt, Count)
        if count % samples_per_prompt:
            raise ConfigError(
                "rollout: needs a number of episodes that samples_per_prompt divides, got "
                f"{count} episodes of {samples_per_prompt} samples"
            )
        prompts = self.draw_prompts(count // samples_per_prompt)
        return self.rollout_on(policy, prompts, samples_per_prompt=samples_per_prompt, timer=timer)

    def draw_prompts(self, count: int) -> list[Prompt]:
        """The next prompts of the stream that :meth:`rollout` draws from. Args: count: of prompts, at least 1."""
        return [self.task.prompts.draw(self.np_random) for _ in range(checked("draw_prompts: count", count, Count))]

    def rollout_on(
        self,
        policy: Policy | Sampler,
        prompts: Sequence[Prompt | str | Mapping[str, Any]],
        *,
        samples_per_prompt: int = 1,
        timer: PhaseTimer | None = None,
    ) -> Episodes:
        """:meth:`rollout` on given prompts (tokenised, texts, or rows with columns), ``samples_per_prompt`` episodes
        each."""
        loaded = self.as_prompts(prompts)
        if not loaded:
            raise ConfigError("rollout: needs at least one prompt, got none")
        draws = self.np_random if self._draws is None else self._draws
        seed = int(draws.integers(2**31))
        sampler = sampler_of(policy)
        if self.sampling.truncates and not sampler.stores_keep_sets:
            raise UnsupportedModelError(
                f"sampler {type(sampler).__name__}: must store the keep set of each token where top_k, top_p, min_p or "
                "min_new_tokens truncate the distribution, or learning would take ratios to another one, and it has "
                "stores_keep_sets = False; sample without truncation, or with the policy's own sampler"
            )
        return collect(
            self.task,
            sampler,
            loaded,
            self.reward_model,
            kl_coef=self.kl_coef,
            seed=seed,
            samples_per_prompt=samples_per_prompt,
            timer=timer,
        )

    def state_dict(self) -> dict[str, Any]:
        """beta and every random generator; episodes that are being stepped are not in it."""
        return {
            **super().state_dict(),
            "rows": [state_of(rng) for rng in self._row_rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave.

        Raises:
            ConfigError: it is no such state, or comes from an environment of another number of rows, or with another
                ``sampling.seed``; the environment is as it was.
        """
        state = require_state("environment", state, list(self.state_dict()))
        saved = checked("environment state: rows", state["rows"], tuple[Any, ...])
        if len(saved) != self.num_envs:
            raise ConfigError(
                f"environment state: must come from an environment of {self.num_envs} rows, got {len(saved)} rows"
            )
        rows = [
            None if one is None else generator_of(one, f"environment state: row {n}") for n, one in enumerate(saved)
        ]
        super().load_state_dict(state)
        self._row_rngs = rows

    def render(self) -> tuple[str, ...] | None:
        """One transcript per row ("ansi": as strings; "human" prints as it goes)."""
        if self.render_mode != "ansi":
            return None
        return tuple(transcript.text() for transcript in self._transcripts)

    def as_prompts(self, prompts: Sequence[Prompt | str | Mapping[str, Any]]) -> list[Prompt]:
        """:meth:`as_prompt` for several, all checked before anything runs.

        Raises:
            PromptError: see there.
            ConfigError: one lacks a column that the reward model needs.
        """
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
            raise PromptError(f"prompts: must be a list of texts, rows or prompts, got {shown(prompts)}")
        return self._checked_prompts([self.as_prompt(prompt) for prompt in prompts])

    def as_prompt(self, prompt: Prompt | str | Mapping[str, Any]) -> Prompt:
        """Tokenise a prompt (a text, or a row) for :meth:`rollout_on`; a tokenised one is returned as it is.

        A rollout makes no observations, so only the model's context limits the prompt.

        Raises:
            PromptError: it is empty, or does not fit the context together with ``max_new_tokens``.
        """
        if isinstance(prompt, Prompt):
            return prompt
        task, new = self.task, self.task.sampling.max_new_tokens
        limit = None if self.reference is None else self.reference.longest_prompt(new)
        return task.prompts.load_alike([prompt], task.tokenizer, max_prompt_tokens=limit, vocab_size=task.vocab_size)[0]

    def _check_running(self, active: np.ndarray) -> None:
        if any(prompt is None for prompt in self._mdp.prompts):
            raise EpisodeOverError("step: needs running episodes, and none was begun; call reset()")
        if self.autoreset_mode is AutoresetMode.DISABLED and not active.all():
            raise EpisodeOverError(
                f"step: with autoreset disabled every row must be running, and rows {np.flatnonzero(~active).tolist()} "
                'have ended; call reset(options={"reset_mask": mask}) on them first'
            )

    def _seed_rows(self, seed: int | Sequence[int | None] | None, rows: np.ndarray) -> None:
        """Row i gets its own generator, as i single environments would have."""
        seeds: Sequence[int | None]
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str | bytes):
            seeds = checked("reset: seed", seed, tuple[Whole | None, ...])
        else:
            first = checked_seed(seed)
            seeds = [None if first is None else first + row for row in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ConfigError(f"seed: a sequence must have num_envs = {self.num_envs} entries, got {len(seeds)}")
        for row in rows:
            if seeds[row] is not None or self._row_rngs[row] is None:
                self._row_rngs[row] = seeding.np_random(seeds[row])[0]
        if seeds[0] is not None and 0 in rows:
            # A stream of its own: row 0 draws its prompts from the one that Gymnasium makes of the same seed.
            self._np_random = np.random.default_rng(np.random.SeedSequence(seeds[0], spawn_key=(ROLLOUT_STREAM,)))
            self._np_random_seed = seeds[0]
            self._draws = self._new_draws()

    def _start(self, rows: np.ndarray, options: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        prompts = []
        for row in rows:
            rng = self._row_rngs[row]
            assert rng is not None  # every row is seeded before its first episode
            prompts.append(chosen_prompt(self.task, options, rng))
        prompts = self._checked_prompts(prompts)
        if prompts:
            self._mdp.start([int(row) for row in rows], prompts)
        for row, prompt in zip(rows, prompts, strict=True):
            self._transcripts[row].start(prompt)
        return [{"prompt": prompt.text} for prompt in prompts]

    def _restart(self, rows: np.ndarray, infos: list[dict[str, Any]]) -> None:
        for row, row_info in zip(rows, self._start(rows), strict=True):
            infos[row] = row_info

    def _write_transcripts(self, transition: Transition, tokens: np.ndarray, active: np.ndarray) -> None:
        for row in np.flatnonzero(active):
            kl = {} if transition.kl is None else {"kl": float(transition.kl[row])}
            outcome = transition.outcomes[row]
            end = step_info(transition, int(row), None) if outcome is not None else {}
            self._transcripts[row].add(int(tokens[row]), {**end, **kl})
            if outcome is not None and self.render_mode == "human":
                self._transcripts[row].show()

    def _observation(self) -> Observation:
        return {
            "input_ids": self._mdp.input_ids.copy(),
            "attention_mask": self._mdp.attention_mask.copy(),
        }


def _checked_autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except (ValueError, TypeError) as error:
        choices = ", ".join(repr(choice.value) for choice in AutoresetMode)
        raise ConfigError(f"autoreset_mode: must be an AutoresetMode or one of {choices}, got {mode!r}") from error


def _reset_mask(options: Mapping[str, Any] | None, num_envs: int) -> np.ndarray:
    mask = checked_options(options, ("prompt", "reset_mask")).get("reset_mask")
    if mask is None:
        return np.ones(num_envs, dtype=bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,) or not mask.any():
        raise ConfigError(
            f'options["reset_mask"]: must be a bool array of shape ({num_envs},) with at least one True, got {mask!r}'
        )
    return mask
