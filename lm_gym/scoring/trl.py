"""Reward functions written for TRL's trainers as reward models; TRL itself is not needed.

Knows: what ``GRPOTrainer`` of TRL 1.16 calls a reward function with (``trl/trainer/grpo_trainer.py``,
``_calculate_rewards``). Does not know: any function of TRL. A function of plain texts needs no adapter:
:func:`lm_gym.scoring.as_reward_model` takes it as it is.

Shapes: B = rows scored in one call.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lm_gym.errors import RewardModelError
from lm_gym.scoring.adapters import scores_from_list
from lm_gym.scoring.binding import FunctionArguments, callable_name, lasting_name
from lm_gym.scoring.protocol import RewardModel, Scores
from lm_gym.tools.settings import checked

__all__ = ["TRLReward"]

LOGS = ("log_extra", "log_metric")
"""Callables that TRL's trainers log by; a function here is given ones that do nothing."""
TRAINERS = ("trainer_state", "environments")
"""What only a trainer of TRL has."""


class TRLReward(RewardModel):
    """A reward function of TRL: conversations, ``async def``, ``log_extra`` and all::

        reward_model=TRLReward(think_format_reward)

    As there, arguments are bound by name, further columns of the prompts' rows arrive as keyword arguments, and None
    abstains. Departures: a NaN is an error and no abstention; a function of token ids is refused, since a reward model
    reads text and may have another tokenizer; what is logged is dropped.
    """

    def __init__(self, function: Callable[..., Any], *, conversational: bool = True) -> None:
        """Args:
        function: ``f(prompts, completions, **columns) -> list[float | None]``, ordinary or asynchronous.
        conversational: give it messages, as TRL does where a data set holds conversations: a completion is
            ``[{"role": "assistant", "content": text}]``, a prompt one user message with the whole prompt as its text.
            False gives it texts.

        Raises:
            RewardModelError: its arguments cannot be bound by name, or it needs token ids or TRL's trainer.
            ConfigError: a setting is of another kind.
        """
        self.function = function
        self.conversational = checked("TRLReward: conversational", conversational, bool)
        if not callable(function) or inspect.isclass(function):
            raise RewardModelError(
                f"TRLReward: needs a reward function f(prompts, completions, **columns), got {function!r}; pass the "
                "function itself, or what its maker returns"
            )
        self.name = callable_name(function)
        self._call = _synchronous(function) if _is_async(function) else function
        self._arguments = FunctionArguments(self._call)
        needed = [name for name in self._arguments.columns if name in TRAINERS]
        if needed:
            raise RewardModelError(
                f"reward model {self.name}: needs {needed[0]!r}, which only a trainer of TRL has; give the parameter a "
                "default, or write the function anew without it"
            )
        self.columns = tuple(name for name in self._arguments.columns if name not in LOGS)
        self.all_columns = self._arguments.all_columns

    def score(self, prompts: Sequence[str], responses: Sequence[str], /, *_: Any, **columns: Any) -> Scores:
        """Call the function once on all B rows. Returns: Scores of shape (B,)."""
        prompts, responses = list(prompts), list(responses)
        asked: Any = prompts
        answered: Any = responses
        if self.conversational:
            asked = [[{"role": "user", "content": text}] for text in prompts]
            answered = [[{"role": "assistant", "content": text}] for text in responses]
        given = {**columns, **dict.fromkeys(LOGS, _drop)}
        values = self._call(**self._arguments.chosen(asked, answered, given))
        return scores_from_list(self.name, values, prompts, responses)

    def identity(self) -> str | None:
        """``module:name`` of a function at the top of a module, and the form it is given; else None."""
        name = lasting_name(self.function)
        return name and f"{name}, {'messages' if self.conversational else 'texts'}"


def _drop(*_: Any) -> None:
    """Log nothing."""


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _synchronous(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """The function as an ordinary one with its signature, also where an event loop runs already (in a notebook)."""

    @functools.wraps(function)
    def called(**arguments: Any) -> Any:
        async def awaited() -> Any:
            return await function(**arguments)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(awaited())
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, awaited()).result()

    return called
