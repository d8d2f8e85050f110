"""The installed packages beside what lm-gym declares: read from its own metadata, so that no list is kept twice."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lm_gym

__all__ = ["NO_EXTRAS", "Package", "installed_packages", "python_version"]

NO_EXTRAS = ("all", "dev")
"""The sum of the others, and what only work on lm-gym itself needs."""
State = Literal["ok", "missing", "out of range", "broken"]


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that lm-gym needs, or that one of its extras brings."""

    name: str
    """As it is called by pip."""
    extra: str | None
    """The extra that brings it; None for what is always needed."""
    wanted: str
    """Range that lm-gym declares, such as ">=5,<6"."""
    tested: str | None
    """Version that the tests ran with; None where the list of them is not at hand (it lies in the checkout)."""
    installed: str | None
    """Version that is there."""
    state: State
    """Missing, out of the range, broken (it is there and cannot be imported), or ok."""
    error: str = ""
    """Reason why it cannot be imported."""


def python_version() -> Package:
    """The interpreter, as if it were a package."""
    wanted, found = metadata("lm-gym")["Requires-Python"], platform.python_version()
    fits = SpecifierSet(wanted).contains(found, prereleases=True)
    state: State = "ok" if fits else "out of range"
    return Package(name="python", extra=None, wanted=wanted, tested=None, installed=found, state=state)


def installed_packages() -> list[Package]:
    """Every package of lm-gym's metadata, the needed ones first; only those are imported, to see that they can be."""
    extras = [name for name in metadata("lm-gym").get_all("Provides-Extra") or () if name not in NO_EXTRAS]
    tested = _tested_versions()
    found: dict[tuple[str | None, str], Package] = {}
    for line in requires("lm-gym") or ():
        one = Requirement(line)
        if one.name == "lm-gym":
            continue
        for extra in (None, *extras):
            if one.marker is None or one.marker.evaluate({"extra": extra or ""}):
                found[extra, one.name] = _package(one, extra, tested)
                if extra is None:
                    break
    return sorted(found.values(), key=lambda one: (one.extra or "", one.name))


def _package(requirement: Requirement, extra: str | None, tested: dict[str, str]) -> Package:
    name, specifier = requirement.name, requirement.specifier
    installed: str | None = None
    state: State = "ok"
    error = ""
    try:
        installed = version(name)
    except PackageNotFoundError:
        state = "missing"
    else:
        if not specifier.contains(installed, prereleases=True):
            state = "out of range"
        elif extra is None and (error := _import_error(name)):
            state = "broken"
    return Package(
        name=name,
        extra=extra,
        wanted=str(specifier),
        tested=tested.get(canonicalize_name(name)),
        installed=installed,
        state=state,
        error=error,
    )


def _import_error(name: str) -> str:
    try:
        for module in _modules(name):
            importlib.import_module(module)
    except Exception as error:  # a broken build raises anything
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def _modules(name: str) -> list[str]:
    """Names by which a package is imported: its own, or those it brings where none is called like it (PyYAML)."""
    brought = {module for module, names in packages_distributions().items() if name.lower() in map(str.lower, names)}
    own = name.replace("-", "_")
    return [own] if own in brought or not brought else sorted(one for one in brought if not one.startswith("_"))


def _tested_versions() -> dict[str, str]:
    """The pins of ``constraints.txt`` in a checkout; none for an installed wheel."""
    path = Path(lm_gym.__file__).parents[1] / "constraints.txt"
    if not path.is_file():
        return {}
    pins = (line.strip().split("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)
    return {canonicalize_name(pin[0]): pin[1] for pin in pins}
