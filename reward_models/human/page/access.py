"""Who may do what: the link in a cookie, the second token of every change, and how often.

Knows: the order of the checks and what each refusal says. Does not know: what is done then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ..store.links import Link
from .guard import Problem
from .service import PageService

__all__ = ["Annotating", "Changing", "Owning", "RateLimit", "RefusedError", "Session", "cookie_name", "session_of"]

MOST_KEYS = 10_000
"""Buckets that are kept; full ones are forgotten beyond it."""
CSRF_HEADER = "x-csrf-token"
NO_LINK = Problem(401, "this page needs your own link; open it again, or ask whoever sent it for a new one")
REVOKED = Problem(403, "this link was revoked; ask whoever sent it for a new one")
NOT_OWNER = Problem(403, "this page is for the owner of the labels")
NO_CSRF = Problem(403, "the request lacks the page's own token; load the page again")
TOO_MANY = Problem(429, "too many requests; wait a second")


class RateLimit:
    """A limit on how often each key may act; threads share one."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: per_second: acts in the long run. burst: acts at once. clock: gives seconds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def allows(self, key: str) -> bool:
        """Count an act. Returns: False if it is one too many."""
        with self._lock:
            now = self._clock()
            tokens = self._tokens(key, now)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > MOST_KEYS:
                self._buckets = {
                    each: kept for each, kept in self._buckets.items() if self._tokens(each, now) < self._burst
                }
            return allowed

    def _tokens(self, key: str, now: float) -> float:
        tokens, before = self._buckets.get(key, (float(self._burst), now))
        return min(float(self._burst), tokens + (now - before) * self._per_second)


class RefusedError(Exception):
    """A request that is refused."""

    def __init__(self, problem: Problem) -> None:
        """Args: problem: what the client is told."""
        super().__init__(problem.error)
        self.problem = problem


@dataclass(frozen=True)
class Session:
    """One person's request."""

    token: str
    """The secret of their link."""
    link: Link
    """The link, which is good."""


def cookie_name(service: PageService) -> str:
    """Name of the cookie: two stores on one machine have two, though browsers do not tell ports apart."""
    return f"lm_gym_{service.store_id}"


def session_of(request: Request) -> Session:
    """The session of the cookie. Raises: RefusedError: there is no link, or it was revoked, or is used too often."""
    service: PageService = request.app.state.service
    return admit(request, request.cookies.get(cookie_name(service), ""))


def admit(request: Request, token: str) -> Session:
    """The session of a token. Raises: see :func:`session_of`."""
    service: PageService = request.app.state.service
    limit: RateLimit = request.app.state.limit
    link = service.find(token) if token else None
    if link is None:
        address = request.client.host if request.client else ""
        raise RefusedError(NO_LINK if limit.allows(f"address {address}") else TOO_MANY)
    if not limit.allows(f"link {link.token_hash}"):
        raise RefusedError(TOO_MANY)
    if link.revoked is not None:
        raise RefusedError(REVOKED)
    return Session(token, link)


def _changing(request: Request, session: Annotated[Session, Depends(session_of)]) -> Session:
    service: PageService = request.app.state.service
    if not service.is_csrf(session.token, request.headers.get(CSRF_HEADER, "")):
        raise RefusedError(NO_CSRF)
    return session


def _owning(session: Annotated[Session, Depends(session_of)]) -> Session:
    if session.link.role != "owner":
        raise RefusedError(NOT_OWNER)
    return session


Annotating = Annotated[Session, Depends(session_of)]
"""Anybody with a good link."""
Changing = Annotated[Session, Depends(_changing)]
"""The same, from a page of this server."""
Owning = Annotated[Session, Depends(_owning)]
"""The owner."""
