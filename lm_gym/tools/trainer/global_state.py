"""Restoring the process-wide state that a ``Trainer`` of transformers changes: seeds, switches, singletons."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from transformers.utils import logging as hf_logging

__all__ = ["restored_global_state"]


@contextmanager
def restored_global_state() -> Iterator[None]:
    """Restore, after the block, the process-wide state that it found; within it, gradients are on.

    That is: Python's, NumPy's and torch's random generators, grad mode, environment variables, transformers' log level,
    and accelerate's singletons, which a Trainer empties under an Accelerator of the caller.
    """
    singletons = (PartialState, AcceleratorState, GradientState)
    states = [dict(singleton._shared_state) for singleton in singletons]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (restores what others seeded)
    environment, verbosity = dict(os.environ), hf_logging.get_verbosity()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        hf_logging.set_verbosity(verbosity)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for singleton, state in zip(singletons, states, strict=True):
            singleton._shared_state.clear()
            singleton._shared_state.update(state)
