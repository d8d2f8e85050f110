"""Conversations as transcripts and back, so that every reward model reads one form of prompt.

The text form is the one of the HH-RLHF files (Bai et al. 2022, arXiv:2204.05862): turns that begin with
``\\n\\nHuman: `` or ``\\n\\nAssistant: ``; a prompt ends with ``\\n\\nAssistant:``. A system message begins with
``\\n\\nSystem: ``. The message form is the one of chat templates: ``{"role": ..., "content": ...}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError

__all__ = ["answer_of", "is_transcript", "messages_of", "split_transcript", "transcript_of", "with_system"]

_NAME_OF = {"system": "System", "user": "Human", "assistant": "Assistant"}
_ROLE_OF = {name: role for role, name in _NAME_OF.items()}
_TURN = re.compile(r"\n\n(Human|Assistant|System):")
_ANSWER = "\n\nAssistant:"
_SYSTEM = "\n\nSystem:"


def transcript_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write messages as a transcript that waits for the assistant.

    Args: messages: of role system, user or assistant, with text contents.

    Raises:
        DataError: no messages, another role, contents that are no text, or text that would read as a new turn.
    """
    if not messages:
        raise DataError("conversation: must hold at least one message, got none")
    turns = []
    for message in messages:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in _NAME_OF:
            raise DataError(f"conversation: every role must be one of {', '.join(_NAME_OF)}, got {role!r}")
        turns.append(f"\n\n{_NAME_OF[role]}: {_content(message)}")
    return "".join(turns) + _ANSWER


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
    """The text of a completion in message form: one message of the assistant.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(messages, Sequence) or len(messages) != 1 or not isinstance(messages[0], Mapping):
        raise DataError(f"conversation: a completion must be one message of the assistant, got {str(messages)[:80]}")
    if messages[0].get("role") != "assistant":
        raise DataError(f"conversation: a completion must be the assistant's, got the role {messages[0].get('role')!r}")
    return _content(messages[0])


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise DataError(f"conversation: content must be text, got {content!r}")
    if _TURN.search(content):
        raise DataError(f"conversation: content must not hold the start of a turn, got {content[:80]!r}")
    return content


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


def split_transcript(transcript: str) -> tuple[str, str]:
    """Divide a whole transcript at the assistant's last turn. Returns: prompt and response.

    Raises:
        DataError: there is no such turn.
    """
    head, found, response = transcript.rpartition(_ANSWER)
    if not found:
        raise DataError(f"transcript: must hold a turn of the assistant (\\n\\nAssistant:), got {transcript[:80]!r}")
    return head + found, response.removeprefix(" ")
