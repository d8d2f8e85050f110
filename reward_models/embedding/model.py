"""A frozen sentence encoder and a small head: a reward model that trains in seconds.

Knows: what the head reads, how it is fitted and saved. Does not know: how a judgement becomes a target
(``learning_targets``) or a loss (``joint_loss``), nor how a text becomes features (``reading``).

Shapes: N = texts, H = features, B = rows scored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import DivergedError
from lm_gym.reward_models.judgements.learning_targets import (
    Item,
    count_idle,
    count_judged_both_ways,
    counts_of,
    items_of,
    require_lesson,
)
from lm_gym.reward_models.judgements.record import Judgement, require_judgements
from lm_gym.reward_models.likelihoods.joint_loss import JudgementLoss, LossConfig, target_tensors
from lm_gym.reward_models.saving.normalizer_fit import fitted_normalizer
from lm_gym.reward_models.scalar.text_encoding import count_tokens
from lm_gym.scoring.protocol import RewardModel, Scores, require_rows
from lm_gym.tools.digests import digest_tensors
from lm_gym.tools.settings import Count, NotNegative, Place, Seed, Text, checked, checked_arguments, settings

from . import saved_folder
from .reading import Reading, Reads
from .sentence_features import EmbeddingCache, SentenceFeatures
from .surface import SURFACE_NAMES

__all__ = ["EmbeddingRewardModel", "EmbeddingTrainingConfig"]


@settings
class EmbeddingTrainingConfig:
    """Settings of the fit of a head: full-batch L-BFGS on the mean loss of a judgement plus an L2 penalty."""

    reads: Reads = "response"
    """What is embedded; see :class:`~lm_gym.reward_models.embedding.reading.Reading`. Under a linear head the prompt
    changes a comparison of two answers to it in ``interaction`` only."""
    surface: bool = False
    """True adds surface features (lengths, punctuation, repetition, overlap with the prompt)."""
    l2: NotNegative = 1.0
    """Weight of half the squared norm of the head's weights, on standardised features; >= 0."""
    hidden: Count | None = None
    """Width of a hidden layer (tanh); None is a linear head, whose fit is convex."""
    max_iterations: Count = 200
    """Most iterations of L-BFGS."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss of each kind of judgement."""
    seed: Seed = 0
    """Seed of a hidden layer's first weights."""
    progress: bool = True
    """True shows the embedding on standard error."""

    @property
    def reading(self) -> Reading:
        """The features that the head reads."""
        return Reading(reads=self.reads, surface=self.surface)


class Head(nn.Module):
    """Standardised features to one score."""

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, hidden: int | None = None, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.hidden = hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(features if hidden is None else hidden, 1)
            first = [] if hidden is None else [nn.Linear(features, hidden), nn.Tanh()]
        if hidden is None:
            nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*first, last)

    def standardise(self, features: Tensor, weights: Tensor) -> None:
        """Take mean and deviation from the training features.

        Args:
            features: of the training texts. Shape: (N, H).
            weights: deviations of the features once they are standardised. Shape: (H,).
        """
        self.mean.copy_(features.mean(0))
        spread = features.std(0, unbiased=False)
        spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))  # a constant feature stays 0
        self.spread.copy_(spread / weights)

    def forward(self, features: Tensor) -> Tensor:
        """Args: features (N, H). Returns: scores (N,)."""
        scores: Tensor = self.layers((features - self.mean) / self.spread).squeeze(-1)
        return scores

    def penalty(self) -> Tensor:
        """Half the squared norm of the weights, without the biases."""
        weights = [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]
        return 0.5 * torch.stack([(weight**2).sum() for weight in weights]).sum()


PARTS: dict[str, Any] = {
    "features": SentenceFeatures,
    "head": Head,
    "reading": Reading | None,
    "normalizer": ScoreNormalizer | None,
    "name": Text,
    "training": Mapping | None,
    "links": Mapping | None,
    "cache_dir": Place | None,
}
"""What each argument of an embedding reward model must be."""


class EmbeddingRewardModel(RewardModel):
    """Scores a response by a head on features of a frozen sentence encoder; embeddings are kept by text."""

    def __init__(
        self,
        features: SentenceFeatures,
        head: Head,
        *,
        reading: Reading | None = None,
        normalizer: ScoreNormalizer | None = None,
        name: str = "embedding",
        training: dict[str, Any] | None = None,
        links: dict[str, Any] | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        """Store; see :meth:`train` and :meth:`load`.

        Args:
            features: the encoder.
            head: from its features to a score.
            reading: the features that the head reads; None reads the response's embedding.
            normalizer: kept with the model for the environment to apply; ``score`` does not.
            name: of the model, in error messages.
            training: a summary of how it was trained, for the record.
            links: numbers that training learned beside the score, for the record.
            cache_dir: folder that keeps embeddings between processes; None keeps them in memory.
        """
        checked_arguments("EmbeddingRewardModel", PARTS, locals())
        self.features, self.head, self.reading = features, head.eval(), reading or Reading()
        self.normalizer = normalizer
        self.training, self.links = dict(training or {}), dict(links or {})
        self.name = name
        self._embed = EmbeddingCache(features, cache_dir)

    @classmethod
    def train(
        cls,
        judgements: Sequence[Judgement],
        encoder: str | Path | SentenceFeatures,
        config: EmbeddingTrainingConfig | None = None,
        *,
        name: str = "embedding",
        device: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> EmbeddingRewardModel:
        """Embed every text once and fit a head to judgements of any kinds.

        Args:
            judgements: the training data. Of a text that is longer than the encoder reads the end is kept.
            encoder: a folder, GGUF file or hub id that ``SentenceTransformer`` loads, or one that is loaded.
            config: settings; None takes the defaults.
            name, device, cache_dir: see the class; the device is the encoder's.

        Raises:
            DataError: the judgements can teach nothing.
            DivergedError: the loss became NaN or infinite.
            ModelLoadError, MissingExtraError: see :meth:`SentenceFeatures.from_pretrained`.
        """
        config = checked("EmbeddingRewardModel: config", config, EmbeddingTrainingConfig | None)
        config = config or EmbeddingTrainingConfig()
        judgements = require_judgements("EmbeddingRewardModel", judgements)
        items = items_of(judgements)
        require_lesson(items)
        if not isinstance(encoder, SentenceFeatures):
            encoder = SentenceFeatures.from_pretrained(encoder, device=device)
        start = time.monotonic()
        prompts = [item.prompt for item in items for _ in item.responses]
        responses = [response for item in items for response in item.responses]
        embed = EmbeddingCache(encoder, cache_dir)
        features = config.reading(embed, prompts, responses, show_progress=config.progress)
        head, links = fit_head(features, items, config)
        texts = sorted(set(chain(*config.reading.texts(prompts, responses))))
        summary = {
            "judgements": len(judgements),
            "targets": counts_of(items),
            "left_out": count_idle(judgements),
            "judged_both_ways": count_judged_both_ways(judgements),
            "texts": len(texts),
            "texts_cut": sum(encoder.are_cut(texts)),
            "seconds": round(time.monotonic() - start, 2),
            "config": asdict(config),
        }
        return cls(encoder, head, reading=config.reading, name=name, training=summary, links=links, cache_dir=cache_dir)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Raw scores of B responses; equal texts are embedded once.

        Returns: Scores of shape (B,).

        Raises:
            RewardModelError: the two lists differ in length.
        """
        require_rows(self.name, prompts, responses)
        if not responses:
            return Scores.of([])
        with torch.inference_mode():
            features = torch.from_numpy(self.reading(self._embed, prompts, responses))
            return Scores.of(self.head(features).numpy())

    def identity(self) -> str:
        """Kind, what is read, and hashes of encoder and head."""
        weights = digest_tensors(self.head.state_dict().items())
        return f"embedding {self.reading.identity()} {self.features.fingerprint} {weights}"

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str]) -> int:
        """Count those of B responses of which a text that is embedded is too long and loses its beginning."""
        of_texts = [self.features.are_cut(texts) for texts in self.reading.texts(prompts, responses)]
        return sum(any(of_row) for of_row in zip(*of_texts, strict=True))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones, however long it is."""
        return count_tokens(self.features.encoder.tokenizer, texts)

    def fit_normalizer(self, prompts: Sequence[str], responses: Sequence[str], *, fitted_on: str) -> ScoreNormalizer:
        """Fit the map that gives these responses (samples of the reference model) mean 0 and deviation 1.

        Returns: the normaliser, also kept as ``normalizer``.

        Raises:
            RewardModelError: fewer than two scores, or all are equal.
        """
        self.normalizer = fitted_normalizer(self, prompts, responses, fitted_on=fitted_on)
        return self.normalizer

    def save(self, directory: str | Path) -> Path:
        """Write encoder, head and record as one folder, whole or not at all. Returns: the folder."""
        record = {
            "name": self.name,
            "reads": self.reading.reads,
            "surface": list(SURFACE_NAMES) if self.reading.surface else None,
            "hidden": self.head.hidden,
            "features": len(self.head.mean),
            "normalizer": None if self.normalizer is None else asdict(self.normalizer),
            "training": self.training,
            "links": self.links,
        }
        return saved_folder.save(directory, record, features=self.features, head=self.head.state_dict())

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str | None = None, cache_dir: str | Path | None = None
    ) -> EmbeddingRewardModel:
        """Read a folder that :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing, has changed since, or is of another kind.
        """
        record, weights, features = saved_folder.load(directory, device=device)
        head = Head(record["features"], record["hidden"])
        head.load_state_dict(weights)
        normalizer = None if record["normalizer"] is None else ScoreNormalizer(**record["normalizer"])
        rest = {key: record[key] for key in ("name", "training", "links")}
        reading = Reading(reads=record["reads"], surface=record["surface"] is not None)
        return cls(features, head, reading=reading, normalizer=normalizer, cache_dir=cache_dir, **rest)


def fit_head(
    features: np.ndarray, items: Sequence[Item], config: EmbeddingTrainingConfig
) -> tuple[Head, dict[str, Any]]:
    """Fit a head to targets, all at once.

    Args:
        features: of the responses of all items, in order. Shape: (N, H), float32.
        items: with N responses in all.
        config: settings.

    Returns: the head, and the links of the loss.

    Raises:
        DivergedError: the loss is NaN or infinite.
    """
    texts = torch.from_numpy(features)
    head = Head(texts.shape[1], config.hidden, config.seed)
    head.standardise(texts, torch.from_numpy(config.reading.weights(texts.shape[1])))
    loss = JudgementLoss(config.loss, [item.targets for item in items])
    ends = list(accumulate(len(item.responses) for item in items))
    rows = [range(end - len(item.responses), end) for item, end in zip(items, ends, strict=True)]
    batch = target_tensors([item.targets for item in items], rows)
    parameters = [p for part in (head, loss) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(parameters, max_iter=config.max_iterations, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def objective() -> Tensor:
        optimizer.zero_grad()
        value = loss(head(texts), batch) / len(batch["labels"]) + config.l2 * head.penalty()
        if not math.isfinite(number := float(value.detach())):
            raise DivergedError(
                f"reward model training: the loss must be finite, got {number}; look for numbers that are no "
                "numbers in the encoder's features, or raise l2"
            )
        value.backward()
        return value

    optimizer.step(objective)
    return head.eval(), loss.links()
