"""The checker of settings: what an annotation lets pass, and what the error says of the rest."""

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from lm_gym.errors import ConfigError, UnknownSettingError
from lm_gym.tools.settings import Bounds, Count, Place, Positive, Seed, Share, Text, checked, options, settings

NAN, INF = float("nan"), float("inf")
Decay = Literal["linear", "cosine", "none"]


@settings
class Inner:
    rate: Positive = 0.5


@settings
class Outer:
    steps: Count
    decay: Decay = "linear"
    names: tuple[Text, ...] = ()
    inner: Inner | None = None

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise ConfigError("Outer.steps: must not be 13, got 13")


@settings
class Derived(Outer):
    """Has what its base has, and more."""

    width: Count = 4


GOOD: list[tuple[Any, Any, Any]] = [
    (int, np.int32(3), 3),
    (float, 3, 3.0),
    (float, np.float32(0.5), 0.5),
    (bool, np.True_, True),
    (Count | None, None, None),
    (Count | None, 4, 4),
    (Seed, 2**32 - 1, 2**32 - 1),
    (Share, 0, 0.0),
    (Decay, "cosine", "cosine"),
    (tuple[int, ...], [1, np.int64(2)], (1, 2)),
    (tuple[int, ...], np.array([1, 2]), (1, 2)),
    (tuple[Text, ...], (), ()),
    (Text | tuple[Text, ...], "a", "a"),
    (Text | tuple[Text, ...], ["a"], ("a",)),
    (Path, Path("x"), Path("x")),
    (Place, "é" * 127, "é" * 127),
    (Place, Path("x") / ("y" * 255), Path("x") / ("y" * 255)),
    (Any, ..., ...),
]


@pytest.mark.parametrize(("annotation", "value", "found"), GOOD, ids=repr)
def test_what_fits_passes_as_the_type_that_is_annotated(annotation: Any, value: Any, found: Any) -> None:
    got = checked("x", value, annotation)
    assert got == found
    assert type(got) is type(found)


BAD: list[tuple[Any, Any, str]] = [
    (int, True, "must be a whole number, got True"),
    (int, 1.5, "must be a whole number, got 1.5; write 2"),
    (int, "3", "must be a whole number, got '3', a text; write the number without quotes"),
    (int, 10**20, "must be a whole number, got 1"),
    (Count, 0, "must be a whole number >= 1, got 0"),
    (Seed, 2**32, r"must be a whole number in [0, 2**32), got 4294967296"),
    (float, NAN, "must be a finite number, got nan"),
    (float, INF, "must be a finite number, got inf"),
    (float, 10**400, "must be a finite number, got 1"),
    (float, True, "must be a finite number, got True"),
    (float, 1j, "must be a finite number, got 1j"),
    (float, "1e-5", "must be a finite number, got '1e-5', a text; write the number without quotes (in YAML as 1.0e-5"),
    (float, np.array(1.0), "must be a finite number, got array(1.)"),
    (Positive, 0, "must be a finite number > 0, got 0"),
    (Share, 1, "must be a finite number in [0, 1), got 1"),
    (Annotated[float, Bounds(above=0, most=1)] | None, 2, "must be None or a finite number in (0, 1], got 2"),
    (bool, 1, "must be True or False, got 1"),
    (bool, "yes", "must be True or False, got 'yes'"),
    (str, b"x", "must be a text that UTF-8 can hold, got b'x'"),
    (str, "\ud800", r"must be a text that UTF-8 can hold, got '\ud800'"),
    (Text, "", "must be a text that is not empty, got ''"),
    (Decay, "linaer", 'must be "linear", "cosine" or "none", got \'linaer\'; did you mean \'linear\'?'),
    (Decay, ["none"], 'must be "linear", "cosine" or "none", got [\'none\']'),
    (
        tuple[Text, ...],
        "END",
        "must be a tuple or list, in which each is a text that is not empty, got 'END'; write ('",
    ),
    (tuple[int, ...], {1: 2}, "must be a tuple or list, in which each is a whole number, got {1: 2}"),
    (tuple[int, ...], np.array(3), "must be a tuple or list, in which each is a whole number, got array(3)"),
    (Path, 3, "must be a path that a file system can hold (no zero byte, no name over 255 bytes), got 3"),
    (Path, Path("a\0b"), "must be a path that a file system can hold (no zero byte, no name over 255 bytes), got Pos"),
    (Place, "x" * 256, "must be a text that is not empty or a path that a file system can hold (no zero byte, no name"),
    (Place, "x/" * 3000, "must be a text that is not empty or a path that a file system can hold (no zero byte, no "),
    (Place, "\ud800", "must be a text that is not empty or a path"),
    (tuple[Any, ...], 3, "must be a tuple or list, got 3"),
    (Annotated[str, "a remark"], 3, "must be a text that UTF-8 can hold, got 3"),
    (Annotated[int | None, "a remark"], "3", "must be None or a whole number, got '3'"),
    (Callable[[str], str] | None, 3, "must be None or a callable, got 3"),
    (float, np.longdouble("1e4000"), "must be a finite number, got "),
    (Inner | None, {"rate": 1}, "must be None or an Inner, got {'rate': 1}"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), BAD, ids=repr)
def test_what_does_not_fit_is_refused_with_rule_value_and_remedy(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked("x", value, annotation)
    assert str(caught.value).startswith(f"x: {message}")
    assert caught.value.__cause__ is None


def test_a_value_that_cannot_be_shown_or_is_long_is_told_of_all_the_same() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ConfigError, match=r"x: must be a whole number, got an object of type Silent that cannot be"):
        checked("x", Silent(), int)
    with pytest.raises(ConfigError, match=r"\.\.\.$"):
        checked("x", list(range(10_000)), int)


def test_a_name_that_no_field_has_is_a_type_error_too_and_the_nearest_is_named() -> None:
    with pytest.raises(UnknownSettingError, match=r"^Outer: no setting is named 'step' .* Did you mean 'steps'\?"):
        Outer(step=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'zzz'.* There are decay, inner, names, "):
        replace(Outer(steps=1), zzz=3)  # type: ignore[call-arg]


def test_what_is_missing_or_has_no_name_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^Outer\.steps: must be given, and is missing"):
        Outer()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"^Outer: settings must be given by name, got 3 without one"):
        Outer(3)  # type: ignore[misc]


def test_rules_of_several_fields_see_values_that_were_checked() -> None:
    with pytest.raises(ConfigError, match="must not be 13"):
        Outer(steps=np.int64(13))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Derived\.width: must be a whole number >= 1, got 0"):
        Derived(steps=1, width=0)
    with pytest.raises(ConfigError, match="must not be 13"):
        Derived(steps=13)


def test_a_settings_object_is_a_frozen_dataclass_that_copies_and_tells_its_signature() -> None:
    made = Derived(steps=2, names=["a"], inner=Inner(rate=1))  # type: ignore[arg-type]
    assert asdict(made) == {"steps": 2, "decay": "linear", "names": ("a",), "inner": {"rate": 1.0}, "width": 4}
    assert copy.deepcopy(made) == made == pickle.loads(pickle.dumps(made))
    assert list(inspect.signature(Derived).parameters) == ["steps", "decay", "names", "inner", "width"]
    with pytest.raises(FrozenInstanceError):
        made.steps = 3  # type: ignore[misc]


def test_options_are_settings_whose_errors_name_the_option() -> None:
    @options
    class Given:
        eval_every: Count
        top_p: Share | None = None

    assert asdict(Given(eval_every=np.int64(2))) == {"eval_every": 2, "top_p": None}  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^--eval-every: must be a whole number >= 1, got 0$"):
        Given(eval_every=0)
    with pytest.raises(ConfigError, match=r"^--eval-every: must be given, and is missing$"):
        Given()  # type: ignore[call-arg]


@pytest.mark.parametrize("value", ["", "a\0b", 3])
def test_the_rule_of_a_place_is_told_once(value: object) -> None:
    words = r"^x: must be a text that is not empty or a path that a file system can hold \(no zero byte, .*\), got"
    with pytest.raises(ConfigError, match=words) as found:
        checked("x", value, Place)
    assert str(found.value).count("file system can hold") == 1
