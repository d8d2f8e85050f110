"""A reward model learned from human preferences: a scalar head on a language model.

Knows: how it scores and how it is saved. Its head is the matter of ``heads``, its text of ``text_encoding``, its fit of
``fit``.

Departure from Ziegler et al. 2019, section 2.1: scores are raw; the artefact carries a
:class:`~lm_gym.config.ScoreNormalizer` for the environment to apply.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from lm_gym.config import ScoreNormalizer
from lm_gym.errors import ConfigError
from lm_gym.models.language_model import resolve_device
from lm_gym.processes import launched_processes
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.saving.normalizer_fit import fitted_normalizer
from lm_gym.scoring.protocol import RewardModel, Scores, require_rows
from lm_gym.tools.digests import digest_tensors
from lm_gym.tools.files import discard_folder
from lm_gym.tools.settings import Place, checked, checked_arguments

from . import saved_folder
from .config import PARTS, RewardTrainingConfig
from .fit import Trainee, checkpoints_beside, fit
from .head_adapter import Adapter, LoraSettings, add_adapter, lasting_base
from .heads import ScalarScorer, check_padding_invariance, classifier_from, fill_id_of, longest_input, row_multiple
from .text_encoding import (
    CHAT_TEMPLATE,
    DEFAULT_TEMPLATE,
    PAIR_TEMPLATE,
    PairEncoder,
    TextEncoder,
    count_tokens,
    padded_width,
    right_padded,
    width_batches,
)

__all__ = ["PreferenceRewardModel"]

DEFAULT_MAX_LENGTH = 1024
CPU_BATCH_TOKENS, BATCH_TOKENS = 2048, 16384
"""Padded tokens per forward pass: a CPU is fastest where a batch stays in its caches."""


class PreferenceRewardModel(RewardModel):
    """Scores a response by one forward pass of a Hugging Face sequence classification model of one label."""

    kind: ClassVar[str] = "preference"
    """Name in the entry-point group, written into the artefact."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        template: str = DEFAULT_TEMPLATE,
        normalizer: ScoreNormalizer | None = None,
        name: str = "preference",
        device: str = "auto",
        training: Mapping[str, Any] | None = None,
        links: Mapping[str, Any] | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        """Store and check; use :meth:`from_base` or :meth:`load` to get the model itself.

        Args:
            model: a ``...ForSequenceClassification`` model with ``num_labels=1``; it is put in eval mode.
            tokenizer: its tokenizer. A pad token that equals eos is harmless; a decoder needs none.
            max_length: most tokens of a text; None takes what model and tokenizer allow, at most 1024.
            template: pattern that joins the two texts; ``{prompt}{response}`` puts one space between them where
                neither side has white space, ``chat`` is the tokenizer's chat template, and ``pair`` leaves it to the
                tokenizer, as cross-encoders have it.
            normalizer: kept with the model for the environment to apply; ``score`` does not.
            name: of the model, in error messages.
            device: ``"auto"`` takes an accelerator if there is one.
            training: a summary of how it was trained, for the record.
            links: numbers that training learned beside the score (thumb bias, rating thresholds, ...), for the record.
            adapter: the low-rank adapter that is on the model.

        Raises:
            ConfigError: more than one label, a bad template or max_length, or an encoder without a pad token.
        """
        max_length = checked_arguments(type(self).__name__, PARTS, locals())["max_length"]
        if model.config.num_labels != 1:
            raise ConfigError(
                f"reward model {name}: must have one output (num_labels=1), got {model.config.num_labels}; "
                "PreferenceRewardModel.from_base makes one out of any language model"
            )
        longest = longest_input(model, tokenizer, DEFAULT_MAX_LENGTH if max_length is None else max_length)
        if max_length is not None and longest < max_length:
            raise ConfigError(
                f"reward model {name}: max_length must be at most the {longest} tokens of its model, got {max_length}"
            )
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.tokenizer = tokenizer
        paired = template == PAIR_TEMPLATE
        self.encoder = PairEncoder(tokenizer, longest) if paired else TextEncoder(tokenizer, template, longest)
        self.fill_id = fill_id_of(model, tokenizer)
        self.normalizer = normalizer
        self.training: dict[str, Any] = dict(training or {})
        self.links: dict[str, Any] = dict(links or {})
        self.adapter = adapter
        self.name = name
        typed = paired and "token_type_ids" in tokenizer.model_input_names
        self._separator_id = tokenizer.sep_token_id if typed else None
        self._scorer = ScalarScorer(self.model, separator_id=self._separator_id)

    @classmethod
    def from_base(
        cls,
        base: Any,
        tokenizer: Any = None,
        *,
        max_length: int | None = None,
        template: str = DEFAULT_TEMPLATE,
        seed: int = 0,
        dtype: str = "float32",
        lora: LoraSettings | None = None,
        name: str = "preference",
        device: str = "auto",
    ) -> Self:
        """Put a fresh scalar head on a causal language model or an encoder.

        Args:
            base: folder, GGUF file or hub id, or a loaded model (which is copied; the original stays as it is).
            tokenizer: needed with a loaded model; None loads the one beside the weights. It is copied.
            max_length: see the class.
            template: see the class.
            seed: of the head's first weights.
            dtype: of the weights, e.g. ``"bfloat16"`` for a large model on a GPU under an adapter. Whole models learn
                best in float32, with ``mixed_precision`` of the training settings.
            lora: freeze the model and train low-rank updates and the head; None trains every weight.
            name: of the model, in error messages.
            device: of the model.

        Raises:
            ModelLoadError: the handle leads to no model or tokenizer.
            UnsupportedModelError: the architecture cannot carry such a head.
            ConfigError: see the class.
            MissingExtraError: an adapter is asked for, and peft is not installed.
        """
        if tokenizer is None:
            if not isinstance(base, str | Path):
                raise ConfigError("reward model: a model that is already loaded comes with tokenizer=..., got none")
            tokenizer = saved_folder.load_tokenizer(base)
        tokenizer = copy.deepcopy(checked("reward model: tokenizer", tokenizer, PARTS["tokenizer"]))
        tokenizer.truncation_side, tokenizer.padding_side = "left", "right"
        model, fresh = classifier_from(base, dtype=dtype, seed=seed)
        adapter = None if lora is None else add_adapter(model, lora, fresh=fresh, base=lasting_base(base), seed=seed)
        made = cls(
            model,
            tokenizer,
            max_length=max_length,
            template=template,
            name=name,
            device=device,
            adapter=adapter,
        )
        check_padding_invariance(made.model, made.fill_id)
        return made

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path,
        *,
        template: str | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        name: str | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a reward model that other tools trained: any one-label ``AutoModelForSequenceClassification``.

        Args:
            source: folder or hub id.
            template: see the class; None takes the tokenizer's chat template, or the default if it has none.
            max_length: see the class.
            dtype: of the weights.
            name: of the model, in error messages; None takes the source.
            device: of the model.

        Raises:
            ModelLoadError, ArtifactError: nothing whole loads from there.
            ConfigError: it has more than one label, or see the class.
        """
        model, tokenizer = saved_folder.load_checkpoint(source, dtype=dtype)
        if template is None:
            template = CHAT_TEMPLATE if getattr(tokenizer, "chat_template", None) else DEFAULT_TEMPLATE
        name = str(source) if name is None else name
        return cls(model, tokenizer, max_length=max_length, template=template, name=name, device=device)

    @property
    def max_length(self) -> int:
        """Most tokens of a text; a longer one loses the left end of its prompt, and that is logged."""
        return self.encoder.max_length

    @property
    def template(self) -> str:
        """The pattern that joins prompt and response."""
        return self.encoder.pattern

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Raw scores of B responses; equal rows are scored once.

        On a CPU a row's score is the same to the bit whatever it is scored with. Other hardware may round otherwise
        (about 1e-6 in float32).

        Returns: Scores of shape (B,). A row without a single token (empty prompt and response) is an
            abstention.

        Raises:
            RewardModelError: the two lists differ in length.
        """
        require_rows(self.name, prompts, responses)
        rows = list(zip(prompts, responses, strict=True))
        places = {row: number for number, row in enumerate(dict.fromkeys(rows))}
        value, valid = self._score_ids(self.encoder.encode([row[0] for row in places], [row[1] for row in places]))
        of_row = [places[row] for row in rows]
        return Scores(value=value[of_row], valid=valid[of_row])

    def identity(self) -> str:
        """Kind, how texts are read, and a hash of the weights."""
        return f"{self.kind} {self.template} {self.max_length} {digest_tensors(self.model.state_dict().items())}"

    def count_cut(self, prompts: Sequence[str], responses: Sequence[str]) -> int:
        """Count those of B texts that are too long and lose the left end of their prompt."""
        return self.encoder.count_cut(prompts, responses)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones."""
        return count_tokens(self.tokenizer, texts)

    @torch.inference_mode()
    def _score_ids(self, encoded: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        value = np.zeros(len(encoded), dtype=np.float32)
        valid = np.array([len(ids) > 0 for ids in encoded], dtype=bool)
        readable = [row for row, ids in enumerate(encoded) if ids]
        self.model.eval()
        most = CPU_BATCH_TOKENS if self.device.type == "cpu" else BATCH_TOKENS
        widths = [padded_width(len(encoded[row]), self.max_length) for row in readable]
        for batch in width_batches(widths, most):
            chosen = [readable[number] for number in batch]
            width = widths[batch[0]]
            whole = chosen + chosen[-1:] * (-len(chosen) % row_multiple(width))
            ids, mask = right_padded([encoded[row] for row in whole], self.fill_id, width)
            value[chosen] = self._scorer(ids.to(self.device), mask.to(self.device)).cpu().numpy()[: len(chosen)]
        return value, valid

    @classmethod
    def train(
        cls,
        judgements: Sequence[Judgement],
        base: Any,
        config: RewardTrainingConfig | None = None,
        *,
        output_dir: str | Path | None = None,
        **from_base: Any,
    ) -> Self:
        """Build one on a language model, fit it to judgements of any kinds, and save it.

        Args:
            judgements: the training data.
            base: folder, GGUF file, hub id or loaded model.
            config: settings; None takes the defaults.
            output_dir: folder of the artefact; None saves nothing. With ``checkpoint_every_steps`` the checkpoints
                lie beside it, in ``<output_dir>.checkpoints``, until the artefact is written; calling again with the
                same arguments after a kill goes on from there.
            **from_base: other arguments of :meth:`from_base`.

        Raises:
            DataError, ConfigError, OutputExistsError, DivergedError: see :func:`lm_gym.reward_models.scalar.fit.fit`.
            ModelLoadError, UnsupportedModelError: see :meth:`from_base`.
        """
        config = checked("reward model: config", config, RewardTrainingConfig | None) or RewardTrainingConfig()
        output_dir = checked("reward model: output_dir", output_dir, Place | None)
        made = cls.from_base(base, **from_base)
        if output_dir is not None and made.adapter is not None:
            made.adapter.check_can_be_saved("reward model: output_dir", output_dir)
        checkpoints = None
        if output_dir is not None and config.checkpoint_every_steps is not None:
            checkpoints = checkpoints_beside(output_dir)
        made.fit(judgements, config, checkpoint_dir=checkpoints)
        if output_dir is not None and launched_processes().is_main:
            made.save(output_dir)
            if checkpoints is not None:
                discard_folder(checkpoints)
        return made

    def fit(
        self,
        judgements: Sequence[Judgement],
        config: RewardTrainingConfig | None = None,
        *,
        checkpoint_dir: str | Path | None = None,
    ) -> dict[str, Any]:
        """Fit it in place, and drop its normaliser, which belonged to the old scores.

        Args:
            judgements: the training data, of any kinds.
            config: settings; None takes the defaults.
            checkpoint_dir: folder of checkpoints; a run that was killed goes on from the last whole one. Needed with
                ``checkpoint_every_steps``.

        Returns: the summary, also kept as ``training``. Raises: see :func:`lm_gym.reward_models.scalar.fit.fit`.
        """
        trainee = Trainee(
            name=self.name,
            scorer=self._scorer,
            encoder=self.encoder,
            fill_id=self.fill_id,
            device=self.device,
            adapter=self.adapter,
        )
        found = fit(trainee, judgements, config, checkpoint_dir=checkpoint_dir)
        self.normalizer, self.links, self.training = None, found.links, found.summary
        return self.training

    def fit_normalizer(self, prompts: Sequence[str], responses: Sequence[str], *, fitted_on: str) -> ScoreNormalizer:
        """Fit the map that gives these responses (samples of the reference model) mean 0 and deviation 1.

        Returns: the normaliser, also kept as ``normalizer``.

        Raises:
            RewardModelError: fewer than two scores, or all are equal.
        """
        self.normalizer = fitted_normalizer(self, prompts, responses, fitted_on=fitted_on)
        return self.normalizer

    def merge(self) -> Self:
        """Add an adapter's updates to the weights and drop it, in place. Returns: itself, now a plain model."""
        if self.adapter is not None:
            self.model = self.adapter.merged().requires_grad_(True).eval()
            self._scorer = ScalarScorer(self.model, separator_id=self._separator_id)
            self.adapter = None
        return self

    def save(self, directory: str | Path) -> Path:
        """Write model, tokenizer and record as one folder, whole or not at all. Returns: the folder.

        ``AutoModelForSequenceClassification.from_pretrained`` and ``AutoTokenizer.from_pretrained`` load it
        too, and score a single text alike. Plain batches need a pad token that no text contains; without one
        the saved config has no pad id, and the plain class says so instead of reading the wrong token.

        Under an adapter the folder holds adapter and head, and names the base they need; :meth:`merge` first for a
        folder that needs nothing else.

        Raises:
            ConfigError: an adapter on a base that came as an object, or that lies in the folder.
        """
        record = {
            "kind": self.kind,
            "name": self.name,
            "template": self.template,
            "max_length": self.max_length,
            "normalizer": None if self.normalizer is None else asdict(self.normalizer),
            "training": self.training,
            "links": self.links,
        }
        return saved_folder.save(directory, record, model=self.model, tokenizer=self.tokenizer, adapter=self.adapter)

    @classmethod
    def load(cls, directory: str | Path, *, dtype: str = "float32", device: str = "auto") -> Self:
        """Read a folder that :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing, has changed since, or is of another kind, the tokenizer reads otherwise
                than it did, or the base of an adapter has changed or is gone.
        """
        model, tokenizer, adapter, record = saved_folder.load(directory, dtype=dtype, kind=cls.kind)
        return cls(
            model,
            tokenizer,
            adapter=adapter,
            max_length=record["max_length"],
            template=record["template"],
            normalizer=None if record["normalizer"] is None else ScoreNormalizer(**record["normalizer"]),
            name=record["name"],
            device=device,
            training=record["training"],
            links=record["links"],
        )
