"""Every reward of long runs, worked out again from plain full forward passes over the prefix.

The mirror knows the rules and the model, and nothing of caches: it keeps each row's ids as a list and runs the whole
prefix through the model for every token. Tolerance 2e-4: cached and full passes add up in another order (fp32).
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, CAUSAL, ENCODER_DECODERS, EOS, PROMPTS, full_log_probs, text_score
from tiny_models import single_env as make_single_env
from tiny_models import vector_env as make_vector_env

from lm_gym import LanguageModel, Reference, TextGenerationVectorEnv
from lm_gym.models.decoder import CausalDecoder

ATOL = 2e-4
NEW = 9
KL_COEF = 0.3


class Mirror:
    """Plays along with a vector env and says what every row must be paid."""

    def __init__(self, model: LanguageModel, temperature: float, num_rows: int) -> None:
        self.model, self.temperature = model, temperature
        self.tokenizer = model.tokenizer
        self.prompts = [""] * num_rows
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]
        self.starts = [0] * num_rows

    def start(self, row: int, prompt: str) -> None:
        self.prompts[row] = prompt
        self.ids[row] = list(self.tokenizer(prompt)["input_ids"])
        self.starts[row] = len(self.ids[row])

    def pay(self, row: int, token: int, log_prob: float) -> tuple[float, bool]:
        """The reward of this token, and whether the episode ends on it."""
        ref = full_log_probs(self.model, self.ids[row], self.temperature)[token]
        self.ids[row].append(token)
        response = self.ids[row][self.starts[row] :]
        reward = -KL_COEF * (log_prob - ref)
        ended = token == EOS or len(response) == NEW
        if ended:
            # The tokenizer joins words by spaces, so a response that continues a prompt begins with one.
            text = "".join(f" {self.tokenizer.decode([each])}" for each in response if each != EOS)
            text = text.strip() if self.model.model.config.is_encoder_decoder else text
            reward += text_score([self.prompts[row]], [text])[0]
        return float(reward), ended


def run(env: TextGenerationVectorEnv, mirror: Mirror, steps: int, seed: int = 0) -> list[int]:
    """Play random tokens, check every number, and return the cache's slots after each step."""
    rng = np.random.default_rng(seed)
    _, infos = env.reset(seed=seed)
    running = np.ones(env.num_envs, dtype=bool)
    for row in range(env.num_envs):
        mirror.start(row, infos["prompt"][row])
    slots = []
    for _ in range(steps):
        tokens = np.where(rng.random(env.num_envs) < 0.1, EOS, rng.integers(1, 20, env.num_envs))
        log_probs = -rng.exponential(2.0, env.num_envs)
        obs, rewards, terminated, _, infos = env.step({"token": tokens, "log_prob": log_probs})
        for row in range(env.num_envs):
            expected, ended = mirror.pay(row, int(tokens[row]), log_probs[row]) if running[row] else (0.0, False)
            assert rewards[row] == pytest.approx(expected, abs=ATOL)
            assert terminated[row] == ended
        decoder = env._mdp._scorer._decoder  # type: ignore[union-attr]
        slots.append(decoder.num_slots if isinstance(decoder, CausalDecoder) else 0)
        running = follow_resets(env, mirror, terminated, infos)
        if env.autoreset_mode.value != "Disabled":
            compare_observations(obs, mirror, ended=terminated if env.autoreset_mode.value == "NextStep" else None)
    return slots


def follow_resets(
    env: TextGenerationVectorEnv, mirror: Mirror, terminated: np.ndarray, infos: dict[str, Any]
) -> np.ndarray:
    """Which rows act in the next step; new prompts go to the mirror."""
    if env.autoreset_mode.value == "Disabled" and terminated.any():
        _, infos = env.reset(options={"reset_mask": terminated})
    for row in np.flatnonzero(infos.get("_prompt", np.zeros(env.num_envs, dtype=bool))):
        mirror.start(int(row), infos["prompt"][row])
    return ~terminated if env.autoreset_mode.value == "NextStep" else np.ones(env.num_envs, dtype=bool)


def compare_observations(obs: dict[str, np.ndarray], mirror: Mirror, ended: np.ndarray | None) -> None:
    for row, ids in enumerate(mirror.ids):
        width = obs["input_ids"].shape[1]
        assert obs["input_ids"][row].tolist() == ids + [EOS] * (width - len(ids))
        assert obs["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (width - len(ids))


def vector_env(reference: Reference, mode: str, num_envs: int = 3, **settings: Any) -> TextGenerationVectorEnv:
    return make_vector_env(
        num_envs,
        reference,
        settings.pop("prompts", PROMPTS),
        text_score,
        action_mode="token_and_log_prob",
        autoreset_mode=mode,
        max_new_tokens=NEW,
        kl_coef=KL_COEF,
        **settings,
    )


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "mistral"])
def test_every_reward_equals_plain_full_forwards(
    architecture: str, mode: str, reference_of: Callable[[str], Reference]
) -> None:
    reference = reference_of(architecture)
    temperature = 0.7 if mode == "SameStep" else 1.0
    env = vector_env(reference, mode, temperature=temperature)
    two_sided = architecture in ENCODER_DECODERS
    slots = run(env, Mirror(reference.language_model, temperature, 3), steps=25 if two_sided else 50)
    if two_sided:
        return
    capacity = 2 * (6 + NEW)
    # A full cache drops its leading slots before the next token, with rows alive.
    full = [after for before, after in pairwise(slots) if before == capacity]
    assert full, f"the run was too short to fill the cache: {max(slots)} of {capacity} slots"
    assert all(after <= 6 + NEW for after in full)
    assert max(slots) == capacity


@pytest.mark.parametrize("architecture", ["gpt2", "bloom"])
def test_a_long_run_at_another_temperature_stays_exact(
    architecture: str, reference_of: Callable[[str], Reference]
) -> None:
    reference = reference_of(architecture)
    env = vector_env(reference, "NextStep", num_envs=5, temperature=0.7)
    slots = run(env, Mirror(reference.language_model, 0.7, 5), steps=110, seed=3)
    drops = sum(after < before for before, after in pairwise(slots))
    assert drops >= 3


@pytest.mark.parametrize("architecture", CAUSAL)
def test_a_row_may_restart_with_a_prompt_longer_than_the_cache(
    architecture: str, reference_of: Callable[[str], Reference]
) -> None:
    reference = reference_of(architecture)
    env = vector_env(reference, "Disabled", num_envs=2, prompts=["d"], max_prompt_tokens=12)
    mirror = Mirror(reference.language_model, 1.0, 2)
    env.reset(seed=0)
    mirror.start(0, "d")
    mirror.start(1, "d")
    env.step({"token": np.array([3, EOS]), "log_prob": np.array([-1.0, -1.0])})
    mirror.pay(0, 3, -1.0)
    decoder = env._mdp._scorer._decoder  # type: ignore[union-attr]
    long = "e f g h i j k l m n o p"
    assert decoder.num_slots < 12
    env.reset(options={"reset_mask": np.array([False, True]), "prompt": long})
    mirror.start(1, long)
    assert decoder.num_slots == 12
    for step in range(6):
        tokens, log_probs = np.array([step + 1, 2 * step + 1]), np.array([-0.5, -1.5])
        _, rewards, *_ = env.step({"token": tokens, "log_prob": log_probs})
        for row in range(2):
            expected, _ = mirror.pay(row, int(tokens[row]), log_probs[row])
            assert rewards[row] == pytest.approx(expected, abs=ATOL)


@pytest.mark.parametrize("architecture", ["gpt2", "bloom"])
@pytest.mark.parametrize("first_token", [3, EOS], ids=["while it runs", "after all ended at once"])
def test_a_restarted_row_sees_nothing_of_its_last_episode(
    first_token: int, architecture: str, reference_of: Callable[[str], Reference]
) -> None:
    reference = reference_of(architecture)
    env = vector_env(reference, "Disabled", num_envs=2)
    mirror = Mirror(reference.language_model, 1.0, 2)
    _, infos = env.reset(seed=0)
    play(env, mirror, infos, [[5, 6], [first_token, first_token]])
    _, infos = env.reset(options={"reset_mask": np.array([True, False]), "prompt": "d"})
    if first_token == EOS:
        infos = env.reset(options={"reset_mask": np.array([False, True]), "prompt": "b b"})[1]
        mirror.start(0, "d")
    play(env, mirror, infos, [[7, 8], [9, 1], [2, 4]])


def play(env: TextGenerationVectorEnv, mirror: Mirror, infos: dict[str, Any], tokens: list[list[int]]) -> None:
    """Start the rows that ``infos`` has prompts for, then take tokens in all rows and check every reward."""
    for row in np.flatnonzero(infos["_prompt"]):
        mirror.start(int(row), infos["prompt"][row])
    for pair in tokens:
        _, rewards, *_ = env.step({"token": np.array(pair), "log_prob": np.full(len(pair), -1.0)})
        expected = [mirror.pay(row, token, -1.0)[0] for row, token in enumerate(pair)]
        np.testing.assert_allclose(rewards, expected, atol=ATOL)


def test_the_single_env_pays_the_same_as_plain_full_forwards(reference: Reference) -> None:
    env = make_single_env(
        reference, PROMPTS, text_score, action_mode="token_and_log_prob", max_new_tokens=NEW, kl_coef=KL_COEF
    )
    mirror = Mirror(reference.language_model, 1.0, 1)
    rng = np.random.default_rng(1)
    for episode in range(8):
        _, info = env.reset(seed=episode)
        mirror.start(0, info["prompt"])
        ended = False
        while not ended:
            token, log_prob = int(rng.integers(0, 20)), -float(rng.exponential())
            expected, expected_end = mirror.pay(0, token, log_prob)
            _, reward, ended, truncated, _ = env.step({"token": token, "log_prob": log_prob})
            assert reward == pytest.approx(expected, abs=ATOL)
            assert (ended, truncated) == (expected_end, False)


@pytest.mark.parametrize("architecture", CAUSAL)
def test_decoder_states_equal_the_trunk_over_the_whole_sequence(
    architecture: str, model_of: Callable[[str], LanguageModel]
) -> None:
    import torch

    model = model_of(architecture)
    decoder = CausalDecoder(model, 3, max_length=8)
    sequences = [[1, 2, 3], [4], [5, 6]]
    states = decoder.prefill([0, 1, 2], [np.array(ids) for ids in sequences])
    alive = np.array([True, True, True])
    for step in range(20):
        with torch.no_grad():
            for row in np.flatnonzero(alive):
                full = model.hidden(torch.tensor([sequences[row]]))[0, -1]
                torch.testing.assert_close(states[row], full, atol=2e-4, rtol=1e-3)
        if step % 4 == 3:
            restarted = step % 3
            sequences[restarted] = [7 + step % 5] * (1 + step % 3)
            states = states.clone()
            states[restarted] = decoder.prefill([restarted], [np.array(sequences[restarted])])[0]
            alive[restarted] = True
            continue
        tokens = np.array([(step * 3 + row) % 20 + 1 for row in range(3)])
        alive = np.array([alive[row] and len(sequences[row]) < 8 for row in range(3)])
        for row in np.flatnonzero(alive):
            sequences[row].append(int(tokens[row]))
        states = decoder.advance(tokens, alive)
    assert decoder.num_slots < 16
