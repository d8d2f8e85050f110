"""Run folders: one owner of identity, lock, checkpoints and the signals that stop a run.

Not here: what a run does. Light to import: no torch, no transformers.
"""

from __future__ import annotations

from .folder import Checkpoint, Run, Stateful, mark_finished, open_run, open_shared_run, read_result
from .identity import RunIdentity
from .manifests import check_manifest, read_note, write_manifest
from .signals import Interrupted, StopRequest, stopping_at_signals

__all__ = [
    "Checkpoint",
    "Interrupted",
    "Run",
    "RunIdentity",
    "Stateful",
    "StopRequest",
    "check_manifest",
    "mark_finished",
    "open_run",
    "open_shared_run",
    "read_note",
    "read_result",
    "stopping_at_signals",
    "write_manifest",
]
