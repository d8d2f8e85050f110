"""``lm-gym``: every stage of RLHF on its own, and the whole loop.

Each command is a function: its parameters are the options, its docstring is the help.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from lm_gym.errors import LmGymError, WriteError
from lm_gym.runs.signals import Interrupted
from lm_gym.tools.console.terminal import plain_console, visible

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the command line.

    Returns: the exit status: 0; 1 if a file cannot be read or written; 2 for an error of this library (bad input, a
        reward model that fails, training that diverges), and where the doctor finds something wrong; 128 plus the
        number of the signal that stopped the command.
    """
    arguments = sys.argv[1:] if args is None else list(args)
    if arguments == ["--version"]:
        plain_console().print(f"lm-gym {version('lm-gym')}", highlight=False)
        return 0
    console = plain_console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    from .commands import commands
    from .settings import expanded, read

    try:
        status = read(_parsed, expanded(arguments, commands()))()
    except LmGymError as error:
        _tell(console, error)
        return 1 if isinstance(error, WriteError) else 2
    except OSError as error:  # a file that may not be read
        _tell(console, error)
        return 1
    except Interrupted as error:
        console.print(f"{error}; what was done is saved, and the same command with --resume goes on with it")
        return 128 + error.signal
    except KeyboardInterrupt:
        console.print("interrupted at once; what was done since the last checkpoint, if there is one, is lost")
        return 128 + signal.SIGINT
    return status if isinstance(status, int) else 0


def _parsed(args: list[str]) -> Callable[[], Any]:
    """The call that the arguments ask for; an error in them, or --help, ends the process."""
    from .commands import application

    options = (tyro.conf.FlagCreatePairsOff,)
    call: Callable[[], Any] = application().cli(prog="lm-gym", description=DESCRIPTION, args=args, config=options)
    return call


def _tell(console: Console, error: Exception) -> None:
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    console.print(Text.assemble((type(error).__name__, "bold red"), visible(f": {error}{notes}")))


DESCRIPTION = """Reinforcement learning from human feedback on language models.

Start with 'lm-gym demo': the whole loop, offline, in a few minutes.

Then take the stages with your own files, or all of them by 'lm-gym run'.

'lm-gym doctor' looks at the installation. Every command has a --help; 'lm-gym --version' prints the version."""


if __name__ == "__main__":
    sys.exit(main())
