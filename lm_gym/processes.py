"""The processes that share one run, and every number that has to be the same in all of them.

Whoever sums, counts or decides over a batch asks a :class:`Processes` for it, so that a run of N processes computes
what one process with N times the batch would. One process is the default and needs no torch.

Departure from libraries that ask a global for the world size: the object is handed on, and nothing looks it up.

Shapes: any; a result has the shape of its argument, in every process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import checked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ONE_PROCESS", "LaunchedProcesses", "Processes", "chosen_processes", "launched_processes"]


class Processes:
    """A run of one process: every sum is its own."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and draws progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, elementwise."""
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, elementwise."""
        return self.sum(values) / self.size

    def max(self, values: Tensor) -> Tensor:
        """Maximum over processes, elementwise."""
        return values

    def any(self, flag: bool) -> bool:
        """True in every process if it is true in one."""
        return flag

    def gather(self, value: Any) -> list[Any]:
        """The picklable values of all processes, in the order of their ranks."""
        return [value]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over processes, in place."""


ONE_PROCESS = Processes()
"""The default everywhere."""


class LaunchedProcesses(Processes):
    """Processes that a launcher (``torchrun``, ``accelerate launch``) started, over ``torch.distributed``.

    Tensors go through the default process group, so they must lie where its backend wants them (CPU for gloo, GPU for
    NCCL).
    """

    def __init__(self, rank: int, size: int) -> None:
        """Args:
        rank: number of this process.
        size: number of processes.
        """
        self.rank = rank
        self.size = size

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, elementwise."""
        return self._reduced(values, "SUM")

    def max(self, values: Tensor) -> Tensor:
        """Maximum over processes, elementwise."""
        return self._reduced(values, "MAX")

    def any(self, flag: bool) -> bool:
        """True in every process if it is true in one."""
        return any(self.gather(flag))

    def gather(self, value: Any) -> list[Any]:
        """The picklable values of all processes, in the order of their ranks."""
        found: list[Any] = [None] * self.size
        _group().all_gather_object(found, value)
        return found

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over processes, in place; one without counts as 0."""
        import torch

        distributed = _group()
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def _reduced(self, values: Tensor, operation: str) -> Tensor:
        distributed = _group()
        total = values.detach().clone()
        distributed.all_reduce(total, op=getattr(distributed.ReduceOp, operation))
        return total


def launched_processes() -> Processes:
    """The processes of this run, by the variables that a launcher sets (``RANK``, ``WORLD_SIZE``).

    Raises:
        ConfigError: a variable holds no count, or no number of one of so many processes.
    """
    size, rank = _of_launcher("WORLD_SIZE", 1), _of_launcher("RANK", 0)
    if not 0 <= rank < size:
        raise ConfigError(
            f"processes: RANK must be in [0, WORLD_SIZE), got RANK = {rank} and WORLD_SIZE = {size}; start them by "
            "torchrun or accelerate launch, or unset both"
        )
    return ONE_PROCESS if size == 1 else LaunchedProcesses(rank, size)


def chosen_processes(given: Processes | None, subject: str) -> Processes:
    """The processes that share a run: those that were given, else the only one.

    Args:
        given: what the user chose; None is no choice.
        subject: of the error, such as ``"PPO"``.

    Raises:
        ConfigError: none were given, and a launcher started several: each would learn alone, from the same draws; or
            it is something else.
    """
    chosen: Processes | None = checked(f"{subject}: processes", given, Processes | None)
    if chosen is None and (size := launched_processes().size) > 1:
        raise ConfigError(
            f"{subject}: processes: must be given where a launcher started several (WORLD_SIZE = {size}), or each "
            "would learn alone, and was left out; pass processes=lm_gym.processes.launched_processes() for one run of "
            "all of them, or processes=lm_gym.processes.ONE_PROCESS for a run in each"
        )
    return ONE_PROCESS if chosen is None else chosen


def _of_launcher(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"processes: the environment variable {name} must be a whole number, as a launcher sets it, got {text!r}; "
            "unset it"
        )
    return int(text)


def _group() -> Any:
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        raise ConfigError(
            "processes: several were launched, and torch.distributed has no process group to sum over; create an "
            "accelerate.Accelerator (or call torch.distributed.init_process_group) first"
        )
    return distributed
