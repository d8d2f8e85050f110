"""States of random generators, and of the objects that hold some.

Knows: mappings, and NumPy's generators. Does not know: whose they are, or where a state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, Philox

from lm_gym.errors import ConfigError
from lm_gym.tools.settings import shown

__all__ = ["generator_of", "require_state", "state_of"]

KINDS = {kind.__name__: kind for kind in (PCG64, PCG64DXSM, MT19937, Philox, SFC64)}


def state_of(rng: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a generator, of plain values; None for none."""
    return None if rng is None else dict(rng.bit_generator.state)


def generator_of(state: Any, subject: str) -> np.random.Generator:
    """A new generator in a state that :func:`state_of` gave.

    Args:
        state: of a generator of any kind that NumPy has.
        subject: what the state is of, such as ``"environment state: np_random"``.

    Raises:
        ConfigError: it is no such state.
    """
    try:
        rng = np.random.Generator(KINDS[state["bit_generator"]](0))
        rng.bit_generator.state = state
        found = dict(rng.bit_generator.state)
        whole = repr(found) == repr({key: state[key] for key in found})  # NumPy takes a fraction, and cuts it
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError):
        whole = False
    if not whole:
        raise ConfigError(
            f"{subject}: must be the state of a generator of NumPy, as state_dict() gives it, got {shown(state)}"
        )
    return rng


def require_state(subject: str, state: Any, keys: Sequence[str]) -> dict[str, Any]:
    """A copy of the state. Raises: ConfigError: it is no mapping with these keys."""
    if not isinstance(state, Mapping) or not set(keys) <= state.keys():
        raise ConfigError(
            f"{subject} state: must be what state_dict() of such an object gave, with {sorted(keys)}, got {shown(state)}"
        )
    return dict(state)
