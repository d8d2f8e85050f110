"""Guard around the labelling page: what it refuses before anything is read, and the headers of every response.

Knows: Host and Origin, content types, sizes, times, and headers; it is plain ASGI. Does not know: links, stores, JSON.

Sources: Content Security Policy Level 3 (W3C); the Host check is the one defence against DNS rebinding, the Origin
check the first of two against forged requests (the second is a token, see ``access``).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .settings import PageSettings

__all__ = ["Guard", "Problem", "path_for_log", "problem_body"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
JSON = "application/json"


class Problem(NamedTuple):
    """Why a request is refused."""

    status: int
    """HTTP status."""
    error: str
    """Reason for the client, which repeats nothing that it sent."""


def problem_body(problem: Problem) -> bytes:
    """A problem as the JSON that the client gets."""
    return json.dumps({"error": problem.error}).encode()


def path_for_log(path: str) -> str:
    """The path of a request without the token of a link, and with nothing that would break a line."""
    return "/join/..." if path.startswith("/join/") else ascii(path[:200])[1:-1]


class Guard:
    """Middleware that refuses what no labelling page sends, and closes every response to other sites."""

    def __init__(self, app: App, *, settings: PageSettings) -> None:
        """Args: app: the application inside. settings: whom it answers, and how much it takes."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        response = _Response(send)
        body = self._refused(scope) or await self._read(scope, receive)
        if isinstance(body, Problem):
            logger.warning("refused %s %s: %s", scope["method"], path_for_log(scope["path"]), body.error)
            await response.refuse(body)
            return
        try:
            await self._app(scope, _replayed(body, receive), response.send)
        except Exception:
            logger.exception("failed: %s %s", scope["method"], path_for_log(scope["path"]))
            if not response.started:
                await response.refuse(Problem(500, "the server failed; what was stored before is whole"))

    def _refused(self, scope: Message) -> Problem | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or not self._settings.answers(host_name(hosts[0])):
            return Problem(400, "this server does not answer to that host name")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        origins = _values(scope, b"origin")
        if len(origins) != 1 or not _is_same_site(origins[0], hosts[0]):
            return Problem(403, "the request comes from another site")
        types = _values(scope, b"content-type")
        if len(types) != 1 or types[0].partition(";")[0].strip().lower() != JSON:
            return Problem(415, "the content type must be application/json")
        return None

    async def _read(self, scope: Message, receive: Receive) -> bytes | Problem:
        """The body, counted while it arrives: its announced length may be wrong or missing."""
        too_large = Problem(413, f"the request must not exceed {self._settings.body_bytes} bytes")
        announced = _values(scope, b"content-length")
        if any(not each.isdecimal() or int(each) > self._settings.body_bytes for each in announced):
            return too_large
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._settings.read_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return Problem(400, "the connection ended before the request did")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._settings.body_bytes:
                        return too_large
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            return Problem(408, "the request took too long to arrive")


class _Response:
    """The way out, with the headers that every response has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            kept = [(name, value) for name, value in message.get("headers", []) if name.decode().lower() not in HEADERS]
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*kept, *added]}
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        body = problem_body(problem)
        headers = [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]
        if problem.status in (408, 413):  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever the connection says."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def host_name(host: str) -> str:
    """Name or address of a Host header, in lower case, without brackets and port; "" for a malformed one."""
    try:
        parts = urlsplit(f"//{host}")
        plain = parts.netloc == host and "@" not in host and not set(host) & set(" \t\\")
        return parts.hostname or "" if plain and (parts.port is None or parts.port > 0) else ""
    except ValueError:
        return ""


def _is_same_site(origin: str, host: str) -> bool:
    """True if the page that sends a request is one of this server's: same name and same port."""
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()
