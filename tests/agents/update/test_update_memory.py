"""An update holds the logits of one chunk of tokens at a time, however many tokens its batch has.

Every tensor that an operation returns is watched, in the forward pass and the backward pass, until its memory is
given back.
"""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lm_gym import TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig
from lm_gym.models import teacher_forcing as forcing
from lm_gym.testing import tiny_language_model, tiny_tokenizer

V = 20_000
WIDTH = 32
"""Of the model, so that a (WIDTH, V) tensor is its head."""
CHUNK = forcing.HEAD_NUMBERS_ON_CPU // V
"""Tokens whose logits are computed at once."""


@pytest.fixture(autouse=True)
def keep_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a batch that is far beyond what may be kept."""
    monkeypatch.setattr(forcing, "KEPT_NUMBERS", 0)


class LiveLogits(TorchDispatchMode):
    """Bytes of all tensors of (tokens, V) that are alive at once, of whatever type; views count once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self.most_rows = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == V:
                self._watch(tensor)
        return result

    def _watch(self, tensor: torch.Tensor) -> None:
        rows = tensor.numel() // V
        if rows == WIDTH:
            return
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        self._live = {key: kept for key, kept in self._live.items() if not kept[0].expired()}
        self._live[reference.cdata] = (reference, storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        self.most_rows = max(self.most_rows, rows)


def live_logits(episodes: int, **settings: Any) -> tuple[LiveLogits, int]:
    """What an update of so many episodes held, and its response tokens."""
    entropy_coef = settings.pop("entropy_coef", 0.0)
    task = TextTask.of(
        None, ["a b", "c"], tokenizer=tiny_tokenizer(V), kl_coef=0.0, max_new_tokens=28, seed=0, **settings
    )
    env = TextGenerationVectorEnv(task, lambda prompts, completions: [len(text) / 9 for text in completions])
    env.reset(seed=0)
    policy = LanguageModelPolicy(tiny_language_model(vocab_size=V, initializer_range=0.02))
    config = PPOConfig(episodes_per_iteration=episodes, epochs=1, minibatches=1, entropy_coef=entropy_coef)
    batch = env.rollout(policy, episodes)
    agent = PPO(policy, config)
    with LiveLogits() as live:
        agent.update(batch)
    return live, int(batch.response_mask.sum())


@pytest.mark.parametrize("settings", [{}, {"entropy_coef": 0.1}, {"top_k": 50, "temperature": 0.7}])
def test_the_logits_that_are_alive_do_not_grow_with_the_batch(settings: dict[str, Any]) -> None:
    small, few = live_logits(8, **settings)
    large, many = live_logits(24, **settings)
    assert many > 2.5 * few > 5 * CHUNK
    assert small.most_rows == large.most_rows == CHUNK
    assert large.peak == small.peak
    assert large.peak < 4 * many * V


def test_logits_that_outlive_their_chunk_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forcing, "checkpoint", lambda function, *args, **options: function(*args))
    live, tokens = live_logits(24)
    assert live.most_rows == CHUNK
    assert live.peak > 4 * tokens * V


def test_few_logits_are_kept_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Computing them again costs time; up to the limit they wait, and beyond it they do not."""
    again, tokens = live_logits(24)
    monkeypatch.setattr(forcing, "KEPT_NUMBERS", tokens * V)
    kept, _ = live_logits(24)
    monkeypatch.setattr(forcing, "KEPT_NUMBERS", tokens * V - 1)
    beyond, _ = live_logits(24)
    assert beyond.peak == again.peak < 4 * tokens * V < kept.peak
