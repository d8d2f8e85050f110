"""``lm-gym``: every stage of RLHF on its own, and the whole loop.

Each command is a function: its parameters are the options, its docstring is the help.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from lm_gym.errors import LmGymError
from lm_gym.runs.signals import Interrupted

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the command line.

    Returns: the exit status: 0; 2 for an error of this library (bad input, a reward model that fails, training that
        diverges); 128 plus the number of the signal that stopped the command.
    """
    from .commands import application

    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    try:
        application().cli(
            prog="lm-gym",
            description=DESCRIPTION,
            args=sys.argv[1:] if args is None else list(args),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except LmGymError as error:
        console.print(f"[bold red]{type(error).__name__}[/bold red]: {escape(str(error))}", highlight=False)
        return 2
    except KeyboardInterrupt as error:
        console.print("interrupted; the same command with --resume goes on from the last checkpoint")
        return 128 + (error.signal if isinstance(error, Interrupted) else signal.SIGINT)
    return 0


DESCRIPTION = (
    "Reinforcement learning from human feedback on language models. Start with 'lm-gym demo': the whole loop, offline, "
    "in a few minutes. Then use the stages on your own files: pretrain, sft, reward train, reward eval, train, "
    "generate, compare, report, or all of them with run."
)


if __name__ == "__main__":
    sys.exit(main())
