"""A peer's run, timed and weighed: what its script prints at its end. Needs no package of this library."""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers

__all__ = ["timed"]


def timed(
    options: argparse.Namespace,
    watch: Any,
    make_trainer: Callable[[argparse.Namespace, str, Any], Any],
    verify: Callable[[argparse.Namespace, Any, Any], None],
) -> tuple[dict[str, Any], Any]:
    """Build a trainer, train, and check that it did the workload.

    Args:
        options: of the command; ``threads`` of None becomes what torch takes.
        watch: callback of the trainer, with ``attach``, ``ticks`` and ``cpu_ticks``.
        make_trainer: given options, a folder for its files, and the watch.
        verify: given options, trainer and watch; fails if the workload was another.

    Returns: times, rates and memory, ready for JSON, and the trainer.
    """
    options.threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(options.threads)
    transformers.set_seed(options.seed)
    imports_rss = _rss_bytes()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = make_trainer(options, folder, watch)
        watch.attach(trainer)
        baseline_rss = _rss_bytes()
        trainer.train()
        peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
        verify(options, trainer, watch)
    seconds, cpu_seconds = (
        [end - start for start, end in pairwise(ticks[1:])] for ticks in (watch.ticks, watch.cpu_ticks)
    )
    tokens = options.episodes * options.response_tokens  # of responses, in one iteration
    report = {
        "tokens_per_second": tokens / statistics.median(seconds),
        "tokens_per_cpu_second": tokens / statistics.median(cpu_seconds),
        "seconds_per_iteration": seconds,
        "peak_rss_bytes": peak_rss,
        "baseline_rss_bytes": baseline_rss,
        "imports_rss_bytes": imports_rss,
        "torch": torch.__version__,
    }
    return report, trainer


def _rss_bytes() -> int:
    """Return the process's resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
