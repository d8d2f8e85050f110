"""The arguments of a reward function, bound by name, and what makes a callable unfit to be one.

Knows: signatures. Does not know: scores, prompts, environments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_gym.errors import RewardModelError

__all__ = ["FunctionArguments", "callable_name", "lasting_name", "refuse_async", "required_names", "signature_of"]

TEXTS = ("prompts", "completions")
"""Names under which a reward function gets the texts; every other name is a column of the prompts' rows."""

TOKEN_IDS = ("prompt_ids", "completion_ids")
"""Names under which other libraries give token ids, which a reward model never sees."""


class FunctionArguments:
    """Arguments that a reward function takes, found once from its signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Args: function: ``f(prompts, completions, **columns)``, with any part of that left out but not both texts.

        Raises:
            RewardModelError: it cannot be called by name with texts, needs token ids, or is asynchronous.
        """
        name = callable_name(function)
        refuse_async(name, function)
        parameters = signature_of(name, function).parameters.values()
        bound = function.keywords if isinstance(function, functools.partial) else {}
        by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in bound]
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._names = frozenset(p.name for p in by_name)
        nameless = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
        if nameless:
            raise RewardModelError(
                f"reward model {name}: must take its arguments by name, and {nameless[0]!r} is positional-only; "
                "wrap it: def f(prompts, completions, **columns): ..."
            )
        needed = [p.name for p in by_name if p.name in TOKEN_IDS and p.default is p.empty]
        if needed:
            raise RewardModelError(
                f"reward model {name}: needs {needed[0]!r}, and a reward model is given text, never token ids, since "
                "it may have another tokenizer than the policy; tokenise the completions inside it, or take "
                "missing_eos_penalty for length and lm_gym.reward_models.RepetitionPenalty for repetition"
            )
        if not self._takes_any and self._names.isdisjoint(TEXTS):
            raise RewardModelError(
                f"reward model {name}: must take 'prompts' or 'completions' by name, got the parameters "
                f"{[p.name for p in parameters]}; rename them, or wrap it: "
                "def f(prompts, completions, **columns): ..."
            )
        self.columns = tuple(p.name for p in by_name if p.default is p.empty and p.name not in TEXTS)
        """Names that must be columns of the prompts' rows."""
        self.all_columns = self._takes_any or any(p.default is not p.empty and p.name not in TEXTS for p in by_name)
        """True if it takes columns that it can do without."""

    def chosen(
        self, prompts: Sequence[str], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
    ) -> dict[str, Sequence[Any]]:
        """Keyword arguments of one call: the texts and columns that it takes."""
        given = {**columns, "prompts": prompts, "completions": completions}
        return given if self._takes_any else {name: value for name, value in given.items() if name in self._names}


def callable_name(function: Callable[..., Any]) -> str:
    """Name of a function, of what a partial calls, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(function.__name__) if inspect.isroutine(function) else type(function).__name__


def lasting_name(function: Callable[..., Any]) -> str | None:
    """``module:qualname`` of a function that is defined at the top of a module; None for all else.

    A lambda, a function inside a function, a bound method, a partial and a callable object hold more than their name
    says; so does what a decorator made of a function.
    """
    if not inspect.isfunction(function) or "<" in function.__qualname__ or function.__module__ == "__main__":
        return None
    if function.__closure__ is not None:
        return None
    return f"{function.__module__}:{function.__qualname__}"


def refuse_async(name: str, function: Callable[..., Any]) -> None:
    """Raises: RewardModelError: calling it gives something that must be awaited."""
    while isinstance(function, functools.partial):
        function = function.func
    for one in (function, type(function).__call__):
        if inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one):
            raise RewardModelError(
                f"reward model {name}: must be an ordinary function, and it is asynchronous; wrap it: "
                "def f(prompts, completions): return asyncio.run(g(prompts, completions)), or pass "
                "lm_gym.scoring.TRLReward(g, conversational=False)"
            )


def signature_of(name: str, function: Callable[..., Any]) -> inspect.Signature:
    """Signature of a callable. Raises: RewardModelError: it has none that can be read."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise RewardModelError(
            f"reward model {name}: its signature cannot be read ({error}), so nothing can be passed by name; "
            "wrap it: def f(prompts, completions, **columns): ..."
        ) from error


def required_names(signature: inspect.Signature) -> list[str]:
    """Parameters without a default, in order."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in kinds]
