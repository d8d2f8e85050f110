"""PPO's rewards, targets and loss worked out again: episode by episode, token by token, in float64.

Nothing here is shared with ``agents/``. Of a collected batch it reads the ids, the masks and the keep sets; texts,
scores, rewards, values, advantages, losses and gradients are its own, from one plain forward pass per sequence of a
float64 copy of the model.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm_gym import Episodes, Reference
from lm_gym.agents import LanguageModelPolicy, PPOConfig
from lm_gym.testing import tiny_tokenizer

STOPS = (0, 3, 6, 13)
"""Tokens that end a response: EOS, "c", "f" and "m"."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One configuration, in plain numbers that the mirror reads too."""

    architecture: Any = "gpt2"
    vocab_size: int = 16
    env: dict[str, Any] = field(default_factory=dict)
    ppo: dict[str, Any] = field(default_factory=dict)
    normalizer: tuple[float, float] = (1.0, 0.0)
    """Gain and bias, of the reward model."""
    abstains: bool = False
    """Some responses get no score."""
    reference: bool = True
    separate_critic: bool = False
    stale: bool = False
    """The policy has moved between collecting and updating."""
    small_chunks: bool = False
    """The head is applied to 4 positions at a time, and again in the backward pass."""


def score_of(case: Case, text: str) -> float | None:
    """Letters of the first half of the alphabet minus the others; None is an abstention."""
    words = text.split()
    if case.abstains and "i" in words:
        return None
    return sum(1.0 if word[0] < "h" else -1.0 for word in words) / 4 + 0.2


@dataclass
class Row:
    """One episode, in plain lists."""

    prompt: list[int]
    response: list[int]
    kept: list[list[int]]
    """Tokens that each token was drawn from."""
    terminated: bool
    paid: float
    """For the text, on the last token."""
    counts: bool
    """False where the reward model abstained."""


def rows_of(episodes: Episodes, case: Case) -> list[Row]:
    settings = {"max_new_tokens": 6, "on_length_limit": "terminate", "score_weight": 1.0} | case.env
    rows = []
    for number, kept in enumerate(kept_tokens(episodes, case.vocab_size)):
        prompt = episodes.prompt_ids[number][episodes.prompt_mask[number]].tolist()
        response = episodes.response_ids[number][episodes.response_mask[number]].tolist()
        text, capped = text_of(response, settings)
        assert text == episodes.responses[number]
        score = score_of(case, text)
        terminated = not capped or settings["on_length_limit"] == "terminate"
        paid = 0.0
        if terminated and score is not None:
            paid = case.normalizer[0] * score + case.normalizer[1]
            limit = settings.get("score_clip", math.inf)
            paid = settings["score_weight"] * min(max(paid, -limit), limit)
            paid -= settings.get("missing_eos_penalty", 0.0) if capped else 0.0
        rows.append(Row(prompt, response, kept, terminated, paid, score is not None or not terminated))
    return rows


def text_of(response: list[int], settings: dict[str, Any]) -> tuple[str, bool]:
    """The text that is scored, and whether the cap alone ended it."""
    ended = response[-1] in STOPS
    words = tiny_tokenizer(80).convert_ids_to_tokens(response[:-1] if ended else response)
    text = "".join(f" {word}" for word in words)
    found = [text.index(stop) for stop in settings.get("stop_strings", ()) if stop in text]
    if found:
        return text[: min(found)], False
    return text, not ended


def kept_tokens(episodes: Episodes, vocab_size: int) -> Iterator[list[list[int]]]:
    """Per row and token, the ids that could be drawn, read from the packed store number by number."""
    sets, everything = episodes.keep_sets, list(range(vocab_size))
    lists = masks = 0
    for row, length in enumerate(episodes.response_mask.sum(axis=1).tolist()):
        kept = []
        for column in range(length):
            kind = 0 if sets is None else int(sets.kind[row, column])
            if sets is None or kind == 0:
                kept.append(everything)
            elif kind == 1:
                kept.append(sets.ids[sets.offsets[lists] : sets.offsets[lists + 1]].tolist())
                lists += 1
            else:
                bits = sets.bits[masks].tolist()
                kept.append([token for token in everything if bits[token // 8] >> (7 - token % 8) & 1])
                masks += 1
        yield kept


class Weights:
    """A float64 copy of all that learns, at one moment."""

    def __init__(self, policy: LanguageModelPolicy) -> None:
        self.model = copy.deepcopy(policy.model).double()
        self.head = copy.deepcopy(policy.value_head).double()
        self.critic = None if policy.critic is None else copy.deepcopy(policy.critic.model).double()

    def parameters(self) -> dict[str, nn.Parameter]:
        """By name, in the order of the policy's own."""
        parts = [self.model, self.head, *([] if self.critic is None else [self.critic.base_model])]
        named = [(f"{number}.{name}", p) for number, part in enumerate(parts) for name, p in part.named_parameters()]
        return {name: parameter for name, parameter in named if parameter.requires_grad}


class Look(NamedTuple):
    """One episode under some weights; a scalar tensor per token, and the value after the last."""

    log_probs: list[Tensor]
    entropies: list[Tensor]
    values: list[Tensor]
    final_value: Tensor


def look(weights: Weights, row: Row, temperature: float) -> Look:
    ids = torch.tensor([row.prompt + row.response])
    output = weights.model(input_ids=ids, output_hidden_states=True)
    logits = output.logits[0] / temperature
    critic = output if weights.critic is None else weights.critic(input_ids=ids, output_hidden_states=True)
    values = weights.head(critic.hidden_states[-1][0])[:, 0]
    log_probs, entropies, before = [], [], []
    for number, (token, kept) in enumerate(zip(row.response, row.kept, strict=True)):
        place = len(row.prompt) + number - 1  # the position that predicts the token
        total = torch.logsumexp(logits[place][kept], dim=0)
        log_probs.append(logits[place][token] - total)
        each = logits[place][kept] - total
        entropies.append(-(each.exp() * each).sum())
        before.append(values[place])
    return Look(log_probs, entropies, before, values[-1])


@torch.no_grad()
def rewards_of(rows: list[Row], collector: Weights, reference: Reference | None, case: Case) -> list[list[float]]:
    """``r_t = -beta * (log pi - log pi_ref) + [t is the last token] * paid``, under the policy that collected."""
    temperature, beta = case.env.get("temperature", 1.0), case.env.get("kl_coef", 0.3)
    frozen = None if reference is None else copy.deepcopy(reference.model).double()
    found = []
    for row in rows:
        rewards = [0.0] * len(row.response)
        if frozen is not None:
            behaviour = look(collector, row, temperature).log_probs
            logits = frozen(input_ids=torch.tensor([row.prompt + row.response])).logits[0] / temperature
            for number, token in enumerate(row.response):
                place = len(row.prompt) + number - 1
                ref = logits[place][token] - torch.logsumexp(logits[place], dim=0)
                rewards[number] = -beta * float(behaviour[number] - ref)
        rewards[-1] += row.paid
        found.append(rewards)
    return found


@dataclass
class Targets:
    """Per episode and token, plain numbers."""

    old: list[Look]
    advantages: list[list[float]]
    returns: list[list[float]]


@torch.no_grad()
def targets_of(rows: list[Row], rewards: list[list[float]], start: Weights, case: Case, config: PPOConfig) -> Targets:
    old = [look(start, row, case.env.get("temperature", 1.0)) for row in rows]
    advantages, returns = [], []
    for row, paid, seen in zip(rows, rewards, old, strict=True):
        values = [float(value) for value in seen.values]
        following = [*values[1:], 0.0 if row.terminated else float(seen.final_value)]
        deltas = [paid[t] + config.gamma * following[t] - values[t] for t in range(len(paid))]
        decay = config.gamma * config.gae_lambda
        advantages.append(
            [sum(decay ** (late - t) * deltas[late] for late in range(t, len(paid))) for t in range(len(paid))]
        )
        returns.append([advantage + value for advantage, value in zip(advantages[-1], values, strict=True)])
    if config.whiten_advantages:
        counted = [advantage for row, each in zip(rows, advantages, strict=True) if row.counts for advantage in each]
        mean, spread = sum(counted) / len(counted), math.sqrt(variance_of(counted) + 1e-8)
        advantages = [[(advantage - mean) / spread for advantage in each] for each in advantages]
    return Targets(old, advantages, returns)


def loss_of(
    weights: Weights, rows: list[Row], chosen: list[int], targets: Targets, case: Case, config: PPOConfig
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one minibatch, with autograd, and its diagnostics; every token weighs the same."""
    sums: dict[str, Any] = dict.fromkeys(
        ("loss", "policy_loss", "value_loss", "clip_fraction", "value_clip_fraction", "approx_kl", "ratio_mean"), 0.0
    )
    tokens = sum(len(rows[number].response) for number in chosen)
    largest = 0.0
    for number in chosen:
        now, old = look(weights, rows[number], case.env.get("temperature", 1.0)), targets.old[number]
        for t, advantage in enumerate(targets.advantages[number]):
            ratio = torch.exp(now.log_probs[t] - old.log_probs[t])
            policy_loss, clipped = -ratio * advantage, False
            if advantage > 0 and ratio > 1 + config.clip:
                policy_loss, clipped = torch.tensor(-(1 + config.clip) * advantage), True
            elif advantage < 0 and ratio < 1 - config.clip:
                policy_loss, clipped = torch.tensor(-(1 - config.clip) * advantage), True
            value_loss, value_clipped = 0.5 * (now.values[t] - targets.returns[number][t]) ** 2, False
            step = (now.values[t] - old.values[t]).item()
            if config.value_clip is not None and abs(step) > config.value_clip:
                near = float(old.values[t]) + math.copysign(config.value_clip, step)
                held = 0.5 * (near - targets.returns[number][t]) ** 2
                if held > value_loss:
                    value_loss, value_clipped = torch.tensor(held), True
            loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * now.entropies[t]
            apart = ratio.item() - 1 - math.log(ratio.item())
            shares = (loss, policy_loss, value_loss, clipped, value_clipped, apart, ratio.item())
            for name, share in zip(sums, shares, strict=True):
                sums[name] = sums[name] + share / tokens
            largest = max(largest, ratio.item())
    total = sums.pop("loss")
    return total, {name: torch.as_tensor(value).item() for name, value in sums.items()} | {"ratio_max": largest}


def shrunk(gradient: dict[str, Tensor], limit: float | None) -> dict[str, Tensor]:
    """A gradient of at most this L2 norm."""
    norm = math.sqrt(sum(float((each**2).sum()) for each in gradient.values()))
    factor = 1.0 if limit is None else min(1.0, limit / norm)
    return {name: each * factor for name, each in gradient.items()}


def variance_of(numbers: list[float]) -> float:
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 for number in numbers) / len(numbers)
