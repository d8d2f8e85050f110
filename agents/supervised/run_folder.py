"""Run folders of fine-tuning and pretraining: opened by every process, replaced by the finished model.

While a run goes on, its folder is that of :mod:`lm_gym.runs`, with ``metrics.jsonl`` beside the checkpoints. When it
ends, the folder is replaced in one step by the model, its tokenizer, the metrics and the marker with the result, so
``from_pretrained`` loads a whole model from it or nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_gym.processes import launched_processes
from lm_gym.runs.folder import Run, RunIdentity
from lm_gym.runs.metrics_file import METRICS_FILE
from lm_gym.tools.console.quiet import quiet_transformers
from lm_gym.tools.digests import digest_file, digest_json, digest_parts, digest_tensors

from .trainer import LoopConfig

__all__ = ["identity_of", "save_finished"]


def identity_of(
    kind: str,
    config: LoopConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Mapping[str, str],
) -> RunIdentity:
    """Identity of a training run.

    Args:
        kind: names the sort of training.
        model: as it is before the first step.
        data: digests of the texts, by name.
    """
    architecture = model.config.to_dict()
    for name in ("transformers_version", "_name_or_path"):  # say nothing of what the model computes
        architecture.pop(name, None)
    inputs = {
        "start_weights": digest_tensors(model.state_dict().items()),
        "model_config": digest_json(architecture),
        "tokenizer": _digest_tokenizer(tokenizer),
    }
    settings = asdict(config) | {"processes": launched_processes().size}
    return RunIdentity(kind=kind, settings=settings, inputs=inputs | dict(data))


def _digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return digest_parts(text for path in files for text in (path.name, digest_file(path)))


def save_finished(
    run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, result: Mapping[str, Any]
) -> None:
    """Replace the run's folder by the finished model, tokenizer, metrics and result, in one step."""
    if not launched_processes().is_main:
        return
    _align_special_tokens(model, tokenizer)
    with quiet_transformers(), run.replaced_by_model(result) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if (run.folder / METRICS_FILE).is_file():
            shutil.copy(run.folder / METRICS_FILE, folder / METRICS_FILE)


def _align_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make ``generate`` stop at the token that was learned as the end; other end tokens of the model stay."""
    config = model.generation_config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [end for end in ends if end is not None and end < model.config.get_text_config().vocab_size]
    if tokenizer.eos_token_id not in ends:
        ends = [*ends, int(tokenizer.eos_token_id)]
    config.eos_token_id = ends[0] if len(ends) == 1 else ends
    if config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        config.pad_token_id = int(pad if pad is not None else tokenizer.eos_token_id)
