"""``lm-gym doctor`` as a function: its parameters are the options, its docstring is the help."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_gym.tools.console.terminal import plain_console, visible

from .packages import Package, installed_packages, python_version

__all__ = ["doctor"]


def doctor(model: str | None = None, json: bool = False) -> int:
    """Look at this installation: versions, devices, fast precisions, missing extras.

    The exit status is 0 only if all that is needed works, and --model loads.

    Args:
        model: Folder, GGUF file, hub id or run, or folder of a reward model: also see whether it loads.
        json: Print JSON instead of tables.
    """
    packages = [python_version(), *installed_packages()]
    bad = [one for one in packages if one.extra is None and one.state != "ok"]
    found: dict[str, Any] = {
        "packages": [asdict(one) for one in packages],
        "missing_by_extra": _missing_by_extra(packages),
        "devices": [],
        "precision": [],
        "verdict": "",
        "fault": "",
        "model": None,
    }
    if not any(one.name == "torch" for one in bad):
        found |= _measured()
        if model is not None:
            from .model import examined

            found["model"] = examined(model)
    loads = model is None or bool(found["model"] and found["model"]["loads"])
    found["ok"] = not bad and not found["fault"] and loads
    console = plain_console()
    if json:
        console.print(json_module.dumps(found, indent=2), soft_wrap=True, highlight=False)
    else:
        _print(found, packages, console)
    return 0 if found["ok"] else 2


def _measured() -> dict[str, Any]:
    from lm_gym.models.language_model import resolve_device

    from .machine import devices
    from .probe import fastest, probe_precisions

    device = resolve_device("auto")
    found: dict[str, Any] = {"devices": devices(), "probed": str(device)}
    try:
        precisions = probe_precisions(device)
    except RuntimeError as error:  # a driver, or a build of torch, that does not fit the device
        return found | {"fault": f"{device} does not compute: {str(error).partition(chr(10))[0]}"}
    return found | {"precision": [asdict(one) for one in precisions], "verdict": fastest(precisions)}


def _missing_by_extra(packages: Sequence[Package]) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for one in packages:
        if one.extra is not None and one.state != "ok":
            missing.setdefault(one.extra, []).append(one.name)
    return missing


def _print(found: dict[str, Any], packages: Sequence[Package], console: Console) -> None:
    table = _table("package", "installed", "declared", "tested with", "extra", "")
    for one in packages:
        state = Text("" if one.state == "ok" else one.state, style="bold red")
        table.add_row(one.name, one.installed or "-", one.wanted, one.tested or "", one.extra or "", state)
    console.print(table)
    for one in packages:
        if one.error:
            _say(console, f"{one.name} does not import: {one.error}")
    console.print()
    for device in found["devices"]:
        console.print(_device_line(device), soft_wrap=True, highlight=False)
    if found["precision"]:
        console.print()
        _print_precision(found, console)
    console.print()
    for extra, names in found["missing_by_extra"].items():
        _say(console, f"missing for {extra}: {', '.join(names)}; pip install 'lm-gym[{extra}]'")
    if found["model"] is not None:
        _say(console, _model_line(found["model"]))
    _say(console, _verdict(found, packages), style="bold")


def _verdict(found: dict[str, Any], packages: Sequence[Package]) -> str:
    needed = [one for one in packages if one.extra is None and one.state != "ok"]
    if needed:
        wrong = ", ".join(f"{one.name} ({one.state})" for one in needed)
        line = " ".join(f"'{one.name}{one.wanted}'" for one in needed if one.name != "python")
        remedy = f"pip install --upgrade {line}" if line else "use another Python"
        return f"not everything that is needed is there: {wrong}; {remedy}"
    if found["fault"]:
        return f"{found['fault']}; install the build of torch that fits the device and its driver"
    if not found["ok"]:
        return "everything that is always needed is there; the model does not load"
    return "everything that is needed is there"


def _print_precision(found: dict[str, Any], console: Console) -> None:
    table = _table(f"precision on {found['probed']}", "matrix product, GFLOP/s", "training step, ms", "")
    for one in found["precision"]:
        numbers = (one["matmul_gflops"], one["step_ms"])
        table.add_row(one["dtype"], *("-" if n is None else f"{n:.1f}" for n in numbers), one["reason"])
    console.print(table)
    _say(console, found["verdict"])


def _device_line(device: dict[str, Any]) -> str:
    parts = [f"{device['device']}: {device['name']}"]
    if "cores" in device:
        parts.append(f"{device['cores']} cores, {device['threads']} threads for torch")
    if device["memory"]:
        parts.append(f"{_size(device['memory'])} memory")
    if device["free"]:
        parts.append(f"{_size(device['free'])} free")
    return ", ".join(parts)


def _model_line(model: dict[str, Any]) -> str:
    if not model["loads"]:
        return f"{model['model']} does not load: {model['error']}"
    if model["kind"] == "reward model":
        columns = f"; needs the columns {', '.join(model['columns'])}" if model["columns"] else ""
        return f"{model['model']} loads: a reward model ({model['class']}){columns}"
    kind = "chat" if model["chat_template"] else "base (no chat template)"
    context = f"{model['context']:,} positions" if model["context"] else "no limit of positions"
    return (
        f"{model['model']} loads: {model['class']}, {kind}, {model['weights']:,} weights, {model['vocabulary']:,} "
        f"tokens in the vocabulary, {context}; in float32 its weights take {_size(model['bytes_to_sample'])}, and with "
        f"gradients, Adam's moments and a reference {_size(model['bytes_to_train'])}; activations and cache come on top"
    )


def _table(*headers: str) -> Table:
    return Table(*headers, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(visible(text), style=style), soft_wrap=True)


def _size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
