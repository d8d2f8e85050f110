"""Junk at every place of a row, for the rows of every form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lm_gym.errors import DataError
from lm_gym.reward_models import load_judgements

JUNK: list[Any] = [
    *(None, True, 0, -1, 2.5, 10**400, float("inf"), "", "x", "[", "[1", "1e999", "\ud83d"),
    *([], [[]], [None], [3], ["x"], ["x", "x"], {}, [{}], {"role": "user"}, [{"role": "user"}], [{"role": []}]),
    *([{"value": 1, "user_id": []}], {"a": {"b": []}}),
]
GOOD = {"prompt": "p", "chosen": "x", "rejected": "y"}


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a row, as the keys that lead there."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*before, key)
        yield from places(value[key], (*before, key))


def spoiled(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row with junk at each place, and without what stood there."""
    for place in places(row):
        for junk in [*JUNK, ...]:
            bad = copy.deepcopy(row)
            holder: Any = bad
            for key in place[:-1]:
                holder = holder[key]
            if junk is ...:
                del holder[place[-1]]
            else:
                holder[place[-1]] = junk
            yield bad


@pytest.fixture
def refuse_junk() -> Callable[[dict[str, Any]], None]:
    """A check that junk in a row is an error that names the row and can be passed over, or a judgement."""

    def check(row: dict[str, Any]) -> None:
        refused = 0
        for bad in spoiled(row):
            loaded = load_judgements([bad, GOOD], skip_bad=True)
            refused += len(loaded.skipped)
            assert loaded.judgements[-1].prompt == "p"
            if loaded.skipped:
                assert [one.where for one in loaded.skipped] == ["judgements, row 1"]
                with pytest.raises(DataError, match="judgements, row 1: "):
                    load_judgements([bad])
        assert refused

    return check
