"""``transformers`` without its own progress bars: the library shows its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as hf_logging

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers(*, only_errors: bool = False) -> Iterator[None]:
    """No bars for each loaded or saved file; the settings are put back afterwards.

    Args: only_errors: also keep back warnings, where the caller checks for itself what they warn of.
    """
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    if only_errors:
        hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
