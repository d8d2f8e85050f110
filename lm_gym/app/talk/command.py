"""``lm-gym chat`` as a function: its parameters are the options, its docstring is the help."""

from __future__ import annotations

from typing import Annotated

import tyro

from lm_gym.app.options import MaybeText, SampleOptions
from lm_gym.tools.console.terminal import plain_console

__all__ = ["chat"]


def chat(
    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")],
    sampling: Annotated[SampleOptions, tyro.conf.arg(name="")],
    other: Annotated[
        tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[OTHER]", help_behavior_hint="(default: none)")
    ] = None,
    reward_model: MaybeText = None,
    reference: MaybeText = None,
    separator: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: nothing)")] = "",
) -> None:
    """Talk to a language model, or to two side by side, token by token.

    A model with a chat template is told the turns so far in it.

    Any other continues each line as a text; an empty line goes on with the last.

    Commands: /reset, /temperature X, /system TEXT, /quit; Ctrl-C ends an answer.

    Without a terminal every line of standard input is a turn.

    Args:
        model: Folder, GGUF file, hub id or run.
        sampling: Settings of sampling and of prompts.
        other: Folder, GGUF file, hub id or run of a second model that answers the same messages.
        reward_model: Score every answer, and on a terminal what there is of it while it is written.
        reference: Folder, GGUF file, hub id or run of a model from which the KL of every answer is taken, in nats.
        separator: Put after every message that starts a text, for models without one.
    """
    import sys
    from dataclasses import replace

    from lm_gym.app.from_files.standalone import sampling_of
    from lm_gym.app.run_models import language_model_of, reward_model_of
    from lm_gym.models.language_model import load_language_model
    from lm_gym.models.reference import Reference
    from lm_gym.scoring.handles import load_reward_model

    from .conversation import Conversation, lines_of_standard_input
    from .speaker import Speaker

    console = plain_console()
    speakers = []
    for name in (model, other):
        if name is not None:
            rules = replace(sampling_of(sampling), seed=sampling.seed)
            loaded, scored = load_language_model(language_model_of(name)), sampling.scored_chat
            speakers.append(Speaker(name, loaded, rules, separator=separator, scored_chat=scored))
    conversation = Conversation(
        speakers,
        console,
        reward_model=None if reward_model is None else load_reward_model(reward_model_of(reward_model)),
        reference=None if reference is None else Reference(load_language_model(language_model_of(reference))),
        attended=sys.stdin.isatty(),
    )
    if sampling.system is not None:
        conversation.instruct(sampling.system)
    conversation.run(lines_of_standard_input(console))
