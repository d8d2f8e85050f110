"""A short measured probe: how fast a matrix product and a training step are here in each precision.

The step is forward and backward through one transformer layer, as the library trains: float32 weights, and autocast for
the narrower types. Numbers are those of this machine at this moment, with whatever else runs on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["DTYPES", "Precision", "fastest", "probe_precisions"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BUDGET_SECONDS = 6.0
"""No measurement is begun after this many seconds."""
LONG_SECONDS = 0.4
"""A first call that takes this long is the measurement; a shorter one warms up."""
REPEAT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What was measured in one precision; None where it could not be, with the reason."""

    dtype: str
    """float32, bfloat16 or float16."""
    matmul_gflops: float | None
    """Billions of floating-point operations per second of a square matrix product."""
    step_ms: float | None
    """Milliseconds of forward and backward through a transformer layer."""
    reason: str = ""
    """Why something was not measured."""


def probe_precisions(device: torch.device) -> list[Precision]:
    """Measure every precision on a device, in less than ten seconds.

    Raises:
        RuntimeError: the device does not compute (its driver or this build of torch does not fit it, say). A precision
            that it merely lacks, or has no memory left for, is told of as not measured.
    """
    began = time.perf_counter()
    found = []
    for name, dtype in DTYPES.items():
        if time.perf_counter() - began > BUDGET_SECONDS:
            found.append(_unmeasured(name, "no time was left"))
        elif device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
            found.append(_unmeasured(name, "this GPU has no bfloat16"))
        else:
            found.append(_measured(name, dtype, device))
    return found


def fastest(found: list[Precision]) -> str:
    """The verdict on the training steps, in words."""
    steps = {one.dtype: one.step_ms for one in found if one.step_ms is not None}
    if "float32" not in steps:
        return "float32 could not be measured"
    best = min(steps, key=lambda name: steps[name])
    if best != "float32":
        return f"{best} is the fastest here: a step {steps['float32'] / steps[best]:.1f} times as fast as in float32"
    others = [f"in {name} a step takes {steps[name] / steps[best]:.1f} times as long" for name in steps if name != best]
    return "; ".join(["float32 is the fastest here", *others])


def _measured(name: str, dtype: torch.dtype, device: torch.device) -> Precision:
    try:
        return Precision(dtype=name, matmul_gflops=_matmul_gflops(device, dtype), step_ms=_step_ms(device, dtype))
    except (NotImplementedError, torch.OutOfMemoryError) as error:  # a kernel that is missing; a GPU that is full
        return _unmeasured(name, str(error).partition("\n")[0])


def _unmeasured(name: str, reason: str) -> Precision:
    return Precision(dtype=name, matmul_gflops=None, step_ms=None, reason=reason)


def _matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    size = 384 if device.type == "cpu" else 4096
    one, other = (torch.randn(size, size, generator=_generator()).to(device, dtype) for _ in range(2))
    return 2e-9 * size**3 / _seconds(lambda: one @ other, device)


def _step_ms(device: torch.device, dtype: torch.dtype) -> float:
    width, rows, columns = (256, 4, 32) if device.type == "cpu" else (1024, 32, 256)
    with torch.random.fork_rng(devices=[]):
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True).to(device)
    states = torch.randn(rows, columns, width, generator=_generator()).to(device)
    narrow = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)

    def step() -> None:
        with narrow:
            out = layer(states)
        out.float().square().mean().backward()

    return 1e3 * _seconds(step, device)


def _generator() -> torch.Generator:
    """One of its own: a probe leaves the global generator as it was."""
    return torch.Generator().manual_seed(0)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Shortest time of a call."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - start

    first = timed()
    if first > LONG_SECONDS:
        return first
    times, spent = [], 0.0
    while spent < REPEAT_SECONDS:
        times.append(timed())
        spent += times[-1]
    return min(times)
