"""Conversations as transcripts and back, so that every reward model reads one form of prompt.

The text form is the one of the HH-RLHF files (Bai et al. 2022, arXiv:2204.05862): turns that begin with
``\\n\\nHuman: `` or ``\\n\\nAssistant: ``; a prompt ends with ``\\n\\nAssistant:``. A system message begins with
``\\n\\nSystem: ``, what a tool returned with ``\\n\\nTool: ``. The message form is the one of chat templates:
``{"role": ..., "content": ...}``, as :mod:`lm_gym.sources.messages` reads it; the assistant's calls of tools stand in
its text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError
from lm_gym.sources.messages import text_messages, with_calls

__all__ = [
    "answer_of",
    "common_beginning",
    "conversation_of",
    "holds_answer",
    "is_transcript",
    "messages_of",
    "split_alike",
    "transcript_of",
    "with_system",
]

_NAME_OF = {"system": "System", "user": "Human", "assistant": "Assistant", "tool": "Tool"}
_ROLE_OF = {name: role for role, name in _NAME_OF.items()}
_TURN = re.compile(r"\n\n(Human|Assistant|System|Tool):")
_ANSWER = "\n\nAssistant:"
_SYSTEM = "\n\nSystem:"


def transcript_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write messages as a transcript that waits for the assistant.

    Args: messages: of role system, user, assistant or tool, with text contents.

    Raises:
        DataError: no messages, another role, contents that are no text, or text that would read as a new turn.
    """
    return _written(text_messages(messages, "conversation")) + _ANSWER


def conversation_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write a conversation whole, the assistant's last answer included.

    Raises:
        DataError: as :func:`transcript_of`; or the assistant does not have the last word.
    """
    turns = text_messages(messages, "conversation")
    if turns[-1]["role"] != "assistant":
        raise DataError(f"conversation: the last message must be the assistant's, got the role {turns[-1]['role']!r}")
    return _written(turns)


def _written(messages: Sequence[Mapping[str, Any]]) -> str:
    turns = []
    for message in messages:
        if message["role"] not in _NAME_OF:
            raise DataError(f"conversation: every role must be one of {', '.join(_NAME_OF)}, got {message['role']!r}")
        turns.append(f"\n\n{_NAME_OF[message['role']]}: {_content(message)}")
    return "".join(turns)


def with_system(system: Any, prompt: str) -> str:
    """Put a system message before a prompt. Returns: a transcript; a prompt that is none becomes the user's turn.

    Raises:
        DataError: the system message is no text, or the prompt has one already.
    """
    before = {"role": "system", "content": system}
    if not is_transcript(prompt):
        return transcript_of([before, {"role": "user", "content": prompt}])
    if prompt.startswith(_SYSTEM):
        raise DataError(f"conversation: must have one system message, got another beside {prompt[:80]!r}")
    return transcript_of([before]).removesuffix(_ANSWER) + prompt


def answer_of(messages: Any) -> str:
    """The text of a completion in message form: one message of the assistant, alone or in a list.

    Raises:
        DataError: it is something else.
    """
    listed = [messages] if isinstance(messages, Mapping) else messages
    if not isinstance(listed, Sequence) or isinstance(listed, str) or len(listed) != 1:
        raise DataError(f"conversation: a completion must be one message of the assistant, got {str(messages)[:80]}")
    (message,) = text_messages(listed, "conversation")
    if message["role"] != "assistant":
        raise DataError(f"conversation: a completion must be the assistant's, got the role {message['role']!r}")
    return _content(message)


def _content(message: Mapping[str, Any]) -> str:
    text = with_calls(message)
    if _TURN.search(text):
        raise DataError(f"conversation: content must not hold the start of a turn, got {text[:80]!r}")
    return text


def is_transcript(text: str) -> bool:
    """True for a prompt in transcript form."""
    return bool(_TURN.match(text)) and text.endswith(_ANSWER)


def messages_of(transcript: str) -> list[dict[str, str]]:
    """The messages of a prompt that :func:`transcript_of` wrote.

    Raises:
        DataError: the text is no such prompt.
    """
    if not is_transcript(transcript):
        raise DataError(
            "transcript: must begin with a turn (\\n\\nHuman: ...) and end with \\n\\nAssistant:, "
            f"got {transcript[:80]!r}"
        )
    parts = _TURN.split(transcript[: -len(_ANSWER)])[1:]
    return [
        {"role": _ROLE_OF[name], "content": text.removeprefix(" ")}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def holds_answer(text: str) -> bool:
    """True for a text with a turn of the assistant."""
    return _ANSWER in text


def split_alike(first: str, second: str) -> tuple[str, tuple[str, str]]:
    """Divide two whole transcripts at the last turn of the assistant up to which they are alike.

    What follows is the response: the last answer as a rule, and more turns where two conversations parted before (as
    in some rows of the HH-RLHF files and in comparisons of whole conversations).

    Returns: the prompt and the two responses.

    Raises:
        DataError: a transcript has no turn of the assistant, or they differ before its first.
    """
    for text in (first, second):
        if not holds_answer(text):
            raise DataError(f"transcript: must hold a turn of the assistant (\\n\\nAssistant:), got {text[:80]!r}")
    end = common_beginning(first, second).rfind(_ANSWER)
    if end < 0:
        raise DataError("chosen and rejected must be one conversation up to some answer, and they differ earlier")
    prompt = first[: end + len(_ANSWER)]
    return prompt, (first[len(prompt) :].removeprefix(" "), second[len(prompt) :].removeprefix(" "))


def common_beginning(first: str, second: str) -> str:
    """The longest beginning of both texts."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # by halving: one comparison of a slice is far faster than a loop over characters
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return first[:low]
