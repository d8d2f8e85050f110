"""Supervised fine-tuning of a language model on prompts and completions.

Maximum likelihood of the completion given the prompt; prompt tokens are not learned, the stop token is (the
first step of Ziegler et al. 2019 and Ouyang et al. 2022). The loop is ``transformers.Trainer``; see
:mod:`lm_gym.agents.supervised.trainer` for what differs and for the table of logged metrics, and
:mod:`lm_gym.agents.supervised.rows` for the forms of a row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.errors import ConfigError, ModelLoadError, UnsupportedModelError
from lm_gym.models.decoding.facts import is_encoder_decoder, longest_sequence
from lm_gym.models.language_model import LanguageModel, load_tokenizer, load_weights
from lm_gym.runs.folder import open_shared_run
from lm_gym.sources.rows import read_rows
from lm_gym.tools.digests import digest_parts
from lm_gym.tools.settings import Count, NotNegative, Place, Several, checked, settings
from lm_gym.tools.trainer.global_state import restored_global_state

from .loop import LoopResult, train_language_model
from .rows import INSTRUCTION_TEMPLATE, LongRowRule, TokenizedRows, tokenize_rows
from .run_folder import identity_of, save_finished
from .trainer import LoopConfig

__all__ = ["Rows", "SupervisedConfig", "SupervisedResult", "supervised_finetune"]

Rows = str | Path | Sequence[Mapping[str, Any]]
logger = logging.getLogger(__name__)


@settings
class SupervisedConfig(LoopConfig):
    """Settings of supervised fine-tuning; models of some million weights like learning rates of 1e-4 to 1e-3."""

    gradient_accumulation: Count = 1
    """Micro-batches per optimiser step; the loss is a mean over all their learned tokens."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warmup; the first two end at 0."""
    max_grad_norm: NotNegative = 1.0
    """Clip the gradient's L2 norm to this; 0 does not clip."""
    max_length: Several | None = None
    """Longest row in tokens, the stop token included; None takes the model's own limit. An encoder-decoder's is that of
    the prompt, and of the completion with the start token."""
    on_long_row: LongRowRule = "error"
    """A longer row: "error" names it; "truncate" cuts the prompt on its left, then the completion on its
    right; "drop" leaves it out. The result counts both."""
    instruction_template: str = INSTRUCTION_TEMPLATE
    """Prompt of an instruction row; must have the field {instruction}."""
    dropout: bool = False
    """True trains with the model's own dropout; the RL that follows compares log-probabilities without it."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""

    def __post_init__(self) -> None:
        _check_template(self.instruction_template)


@dataclass(frozen=True, kw_only=True)
class SupervisedResult:
    """Result of a fine-tuning run."""

    output_dir: str
    """Folder of the model and its tokenizer, for ``from_pretrained``."""
    steps: int
    """Optimiser steps."""
    train_loss: float
    """Mean of the last logged steps, nats per learned token."""
    eval_loss: float | None
    """Loss on ``eval_rows`` at the end, nats per learned token; None without them."""
    perplexity: float | None
    """exp(eval_loss); None without ``eval_rows``."""
    rows: int
    """Rows trained on."""
    truncated_count: int
    """Rows, training and evaluation, that lost tokens to fit."""
    dropped_count: int
    """Rows, training and evaluation, left out because they were too long."""
    seconds: float
    """Training time, resumed runs added up."""
    epochs: float
    """Passes over the rows."""


def supervised_finetune(
    model_or_path: PreTrainedModel | str | Path,
    rows_or_path: Rows,
    output_dir: str | Path,
    config: SupervisedConfig | None = None,
    *,
    eval_rows: Rows | None = None,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> SupervisedResult:
    """Fine-tune a causal language model or an encoder-decoder on rows of text and save it.

    Random generators, environment variables and accelerate's singletons are as before when this returns or raises.

    Args:
        model_or_path: a folder, a GGUF file, a hub id, or a model (which is then trained in place).
        rows_or_path: rows, a ``datasets.Dataset`` or a file of them (:mod:`lm_gym.sources.rows`); the forms of a
            row: :mod:`lm_gym.agents.supervised.rows`.
        output_dir: a new or empty folder. While the run goes on it holds checkpoints; at the end, the model.
        config: settings; None takes the defaults.
        eval_rows: held-out rows or their file.
        tokenizer: needed with a model object, and where the model's folder has none.
        overwrite: replace the run or the model that an earlier call left in ``output_dir``; nothing else is.
        resume: continue a killed run in ``output_dir`` with the same arguments; a finished one returns its
            result.
        progress: show the steps on standard error: a bar on a terminal, a line now and then elsewhere.

    Raises:
        DataError: a file, a row, or its length; the message names it.
        ModelLoadError: the model or tokenizer does not load.
        UnsupportedModelError: no EOS token, no chat template, a tokenizer of another vocabulary, or an
            encoder-decoder that :class:`lm_gym.LanguageModel` refuses.
        OutputExistsError: ``output_dir`` holds a run, and neither ``overwrite`` nor ``resume`` was asked for; it
            holds something else; or another process works there.
        ConfigError: ``resume`` with other settings, texts, tokenizer or starting weights.
        DivergedError: a loss, a gradient or a weight became NaN or infinite; the run stops before the optimiser
            step, and its last checkpoint stays.
        Interrupted: a signal stopped it; a checkpoint was written.
    """
    config = checked("supervised_finetune: config", config, SupervisedConfig | None) or SupervisedConfig()
    progress = checked("supervised_finetune: progress", progress, bool)
    model, loaded_tokenizer = _load(model_or_path, tokenizer)
    parts = [_tokenized(rows_or_path, loaded_tokenizer, config, model, "training rows")]
    if eval_rows is not None:
        parts.append(_tokenized(eval_rows, loaded_tokenizer, config, model, "eval_rows"))
    data = {name: _digest(part) for name, part in zip(("rows", "eval_rows"), parts, strict=False)}
    identity = identity_of("supervised", config, model, loaded_tokenizer, data)
    with (
        restored_global_state(),
        open_shared_run(output_dir, identity, resume=resume, overwrite=overwrite, device=config.device) as run,
    ):
        if run.result is not None:
            logger.info("supervised run %s: is finished already; nothing to resume", run.folder)
            return SupervisedResult(**run.result)
        outcome = train_language_model(
            model,
            parts[0].rows,
            parts[1].rows if eval_rows is not None else None,
            config=config,
            run=run,
            pad_id=int(loaded_tokenizer.eos_token_id),  # under the mask any id will do, and this one exists
            start_id=LanguageModel(model, loaded_tokenizer).start_id if is_encoder_decoder(model) else None,
            progress=progress,
            title="supervised fine-tuning",
        )
        result = _result(output_dir, outcome, parts)
        save_finished(run, model, loaded_tokenizer, asdict(result))
    return result


def _digest(part: TokenizedRows) -> str:
    return digest_parts(np.asarray(row).tobytes() for text in part.rows for row in (text.input_ids, text.loss_mask))


def _result(output_dir: str | Path, outcome: LoopResult, parts: Sequence[TokenizedRows]) -> SupervisedResult:
    return SupervisedResult(
        output_dir=str(output_dir),
        perplexity=None if outcome.eval_loss is None else math.exp(outcome.eval_loss),
        rows=len(parts[0].rows),
        truncated_count=sum(part.truncated_count for part in parts),
        dropped_count=sum(part.dropped_count for part in parts),
        **asdict(outcome),
    )


def _load(
    model_or_path: PreTrainedModel | str | Path, tokenizer: PreTrainedTokenizerBase | str | Path | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model_or_path = checked("supervised_finetune: model", model_or_path, Place | PreTrainedModel)
    tokenizer = checked("supervised_finetune: tokenizer", tokenizer, Place | PreTrainedTokenizerBase | None)
    if isinstance(model_or_path, str | Path):
        model = load_weights(model_or_path)
        tokenizer = tokenizer if tokenizer is not None else model_or_path
    else:
        model = model_or_path
    name = type(model).__name__
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer)
    if tokenizer is None:
        raise ModelLoadError(f"language model {name}: a model object comes without a tokenizer; pass tokenizer=...")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UnsupportedModelError(
            f"language model {name}: must have weights to train, and all are frozen; call model.requires_grad_(True)"
        )
    return model, tokenizer


def _tokenized(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, config: SupervisedConfig, model: PreTrainedModel, name: str
) -> TokenizedRows:
    if isinstance(rows, str | Path):
        name = str(rows)
    if not isinstance(rows, list | tuple):
        rows = read_rows(rows, name=name)
    limit = config.max_length or longest_sequence(model)
    tokenized = tokenize_rows(
        list(rows),
        tokenizer,
        max_length=limit,
        on_long_row=config.on_long_row,
        instruction_template=config.instruction_template,
        source=name,
        apart=is_encoder_decoder(model),
    )
    cut, dropped = tokenized.truncated_count, tokenized.dropped_count
    if cut or dropped:
        logger.warning("%s: %d rows were truncated and %d dropped to fit %s tokens", name, cut, dropped, limit)
    size = model.get_input_embeddings().weight.shape[0]
    largest = max(max(row.input_ids) for row in tokenized.rows)
    if largest >= size:
        raise UnsupportedModelError(
            f"language model {type(model).__name__}: must have an embedding for every token, has {size}, and the "
            f"tokenizer gave the id {largest}; use the model's own tokenizer, or resize_token_embeddings"
        )
    return tokenized


def _check_template(template: str) -> None:
    """Refuse whatever would write another thing than the whole instruction, as "{instruction[0]}" would."""
    try:
        fields = {tuple(field) for _, *field in Formatter().parse(template) if field[0] is not None}
    except ValueError:
        fields = set()
    if fields != {("instruction", "", None)}:
        raise ConfigError(
            "SupervisedConfig.instruction_template: must have the field {instruction}, whole and as it is, and no "
            f"other, got {template!r}; write other braces twice"
        )
