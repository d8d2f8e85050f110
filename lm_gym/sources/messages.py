"""Messages of a conversation with plain text in them, whatever form they come in.

Read are ``{"role", "content"}`` with text, with content parts (``[{"type": "text", "text": ...}]``) or, beside
``tool_calls``, without content; and ``{"from", "value"}`` as ShareGPT wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lm_gym.errors import DataError

__all__ = ["text_messages", "with_calls"]

_ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
"""Names that ShareGPT's files give to roles, beside those of chat templates."""


def text_messages(messages: Any, name: str = "messages") -> list[dict[str, Any]]:
    """Messages as chat templates read them: ``role``, ``content`` as text, and all other keys as they are.

    Args:
        messages: one or more.
        name: of the key that holds them, for the error.

    Raises:
        DataError: no list, no message in it, a message that is no object or has no role, or contents that are no text.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise DataError(f"{name} must be a list of messages, got {str(messages)[:60]!r}")
    if not messages:
        raise DataError(f"{name} must hold at least one message, got none")
    return [_plain(message, name) for message in messages]


def _plain(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f"{name}: every message must be an object with role and content, got {str(message)[:60]!r}")
    if "role" not in message and {"from", "value"} <= set(message):
        rest = {key: value for key, value in message.items() if key not in ("from", "value")}
        sender = message["from"]
        role = _ROLES.get(sender, sender) if isinstance(sender, str) else sender
        message = {"role": role, "content": message["value"], **rest}
    role = message.get("role")
    if not isinstance(role, str):
        raise DataError(f"{name}: every message must have a role (user, assistant, ...), got {role!r}")
    return {**message, "content": _content(message, name)}


def _content(message: Mapping[str, Any], name: str) -> str:
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return ""
    if isinstance(content, list | tuple):
        return "".join(_part(part, name) for part in content)
    if not isinstance(content, str):
        raise DataError(f"{name}: content must be text, got {content!r}")
    return content


def _part(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or part.get("type", "text") not in ("text", "input_text", "output_text"):
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        raise DataError(f"{name}: content parts must be text, got one of type {kind!r}; remove the row")
    return text


def with_calls(message: Mapping[str, Any]) -> str:
    """The text of a message, its calls of tools after it, each as JSON in ``<tool_call>`` tags (as Qwen's and Hermes'
    chat templates write them)."""
    calls = message.get("tool_calls") or ()
    written = [f"<tool_call>\n{json.dumps(_call(call), ensure_ascii=False)}\n</tool_call>" for call in calls]
    return "\n".join([message["content"]] * bool(message["content"]) + written)


def _call(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping):
        return function
    return {key: function[key] for key in ("name", "arguments") if key in function}
