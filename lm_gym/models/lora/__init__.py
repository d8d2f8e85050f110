"""Low-rank adapters on any model of transformers: add, save, load, merge (``adapter``), on layers of peft (``layers``).

The folder of a saved one, and the base that it needs, is the matter of ``saved``. Not here: heads, text, training.
"""

from __future__ import annotations

from .adapter import Adapter, LoraSettings, Task, add_adapter, load_adapter
from .layers import base_fingerprint, has_updates
from .saved import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BASE_RECORD,
    adapter_record,
    base_of_artefact,
    check_apart_from_base,
    lasting_base,
    lasting_handle,
    saved_base,
    write_base,
)

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "BASE_RECORD",
    "Adapter",
    "LoraSettings",
    "Task",
    "adapter_record",
    "add_adapter",
    "base_fingerprint",
    "base_of_artefact",
    "check_apart_from_base",
    "has_updates",
    "lasting_base",
    "lasting_handle",
    "load_adapter",
    "saved_base",
    "write_base",
]
