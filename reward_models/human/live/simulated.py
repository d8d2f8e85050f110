"""A simulated person of stated reliability and delay, who answers a label store directly or over the page's own API.

Knows: opinions, flips, skips, drift, delay. Does not know: what the answers are for.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from lm_gym.errors import ConfigError
from lm_gym.tools.extras import require
from lm_gym.tools.settings import NotNegative, Probability, Seed, checked, checked_arguments

from ..collecting.answering import judge, skip
from ..collecting.assignment import next_showing
from ..store.event_store import LabelStore

__all__ = ["PageTransport", "Shown", "SimulatedPerson", "StoreTransport", "Transport"]

Opinion = Callable[[str, str], float]
"""How good a response to a prompt is, from 0 to 1."""


class Shown(NamedTuple):
    """What a person has before them."""

    showing: str
    """Id of the showing."""
    kind: str
    """Kind of answer that is wanted."""
    prompt: str
    """The prompt."""
    responses: tuple[str, ...]
    """The responses in the order shown."""


class Transport(Protocol):
    """The way from a person to a store."""

    def next(self) -> Shown | None:
        """What is to be answered now; None if nothing is."""
        ...

    def judge(self, showing: str, said: dict[str, Any], seconds: float) -> None:
        """Answer, in the places shown."""
        ...

    def skip(self, showing: str, seconds: float) -> None:
        """Pass it."""
        ...


class StoreTransport(Transport):
    """Straight into an open store."""

    def __init__(self, store: LabelStore, name: str) -> None:
        """Args: store: open. name: of the person."""
        self._store = store
        self._annotator = store.pseudonym(name)

    def next(self) -> Shown | None:
        """See :class:`Transport`."""
        showing = next_showing(self._store, self._annotator)
        if showing is None:
            return None
        with self._store.reading() as state:
            item = state.items[showing.item].item
        texts = tuple(item.question.texts[place] for place in showing.order)
        return Shown(showing.id, item.kind, item.question.prompt, texts)

    def judge(self, showing: str, said: dict[str, Any], seconds: float) -> None:
        """See :class:`Transport`."""
        judge(self._store, self._annotator, showing, said, seconds=seconds)

    def skip(self, showing: str, seconds: float) -> None:
        """See :class:`Transport`."""
        skip(self._store, self._annotator, showing, seconds=seconds)


class PageTransport(Transport):
    """Over the labelling page's API, as a browser does it; close it, or use ``with``.

    What the page refuses, and a server that is gone, is an error of httpx: nothing is sent again.
    """

    def __init__(self, url: str, token: str) -> None:
        """Args: url: of the page. token: of the person's link."""
        httpx = require("httpx", extra="human", purpose="simulated person")
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False, headers={"Origin": url})
        self._client.get(f"/join/{token}").raise_for_status()
        self._client.headers["X-CSRF-Token"] = self._client.get("/api/session").raise_for_status().json()["csrf"]

    def __enter__(self) -> PageTransport:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def next(self) -> Shown | None:
        """See :class:`Transport`."""
        found = self._post("/api/next", {})
        if found["item"] is None:
            return None
        return Shown(found["showing"], found["kind"], found["prompt"], tuple(found["responses"]))

    def judge(self, showing: str, said: dict[str, Any], seconds: float) -> None:
        """See :class:`Transport`."""
        self._answer({"showing": showing, "kind": "judged", "verdict": said, "seconds": seconds})

    def skip(self, showing: str, seconds: float) -> None:
        """See :class:`Transport`."""
        self._answer({"showing": showing, "kind": "skipped", "seconds": seconds})

    def _answer(self, body: dict[str, Any]) -> None:
        self._post("/api/answers", {"id": str(uuid.uuid4()), **body})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._client.post(path, json=body).raise_for_status().json()
        return found


class SimulatedPerson:
    """Answers by an opinion, with stated faults."""

    def __init__(
        self,
        transport: Transport,
        opinion: Opinion,
        *,
        flip_rate: float = 0.0,
        skip_rate: float = 0.0,
        drift: float = 0.0,
        delay_seconds: float = 0.0,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Args:
            transport: the way to the store.
            opinion: how good a response is, from 0 to 1.
            flip_rate: probability of saying the opposite.
            skip_rate: probability of passing an item.
            drift: added to the opinion with every answer, as strictness that grows or wanes.
            delay_seconds: between seeing an item and answering it.
            seed: of flips and skips.
            sleep: how the delay passes.

        Raises:
            ConfigError: one of these is out of range.
        """
        rules = {"flip_rate": Probability, "skip_rate": Probability, "drift": float, "delay_seconds": NotNegative}
        checked_arguments("SimulatedPerson", rules, locals())
        self._transport, self._opinion, self._sleep = transport, opinion, sleep
        self._flip_rate, self._skip_rate = flip_rate, skip_rate
        self._drift, self._delay = drift, delay_seconds
        self._rng = np.random.default_rng(checked("SimulatedPerson: seed", seed, Seed))
        self.answered = 0
        """Answers given so far, skips not counted."""

    def answer_next(self) -> bool:
        """Answer or pass what is next. Returns: False if there was nothing."""
        shown = self._transport.next()
        if shown is None:
            return False
        if self._delay:
            self._sleep(self._delay)
        skips, flips = self._rng.random(2) < (self._skip_rate, self._flip_rate)
        if skips:
            self._transport.skip(shown.showing, self._delay)
            return True
        drifted = [self._opinion(shown.prompt, text) + self._drift * self.answered for text in shown.responses]
        scores = np.clip(drifted, 0.0, 1.0)
        self._transport.judge(shown.showing, said_of(shown.kind, 1 - scores if flips else scores), self._delay)
        self.answered += 1
        return True


def said_of(kind: str, scores: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """An answer of a kind that follows from scores, one per response, from 0 to 1.

    Raises:
        ConfigError: the kind asks for words.
    """
    first = float(scores[0])
    if kind == "thumb":
        return {"kind": kind, "up": first >= 0.5}
    if kind == "rating":
        return {"kind": kind, "stars": round(5 * first)}
    if kind == "value":
        return {"kind": kind, "reward": first}
    if kind == "choice":
        return {"kind": kind, "winner": "tie" if scores[0] == scores[1] else "ab"[int(np.argmax(scores))]}
    if kind == "ranks":
        return {"kind": kind, "ranks": [1 + int(sum(other > one for other in scores)) for one in scores]}
    if kind == "best_of":
        return {"kind": kind, "best": int(np.argmax(scores))}
    raise ConfigError(f"SimulatedPerson: has no opinion on items of kind {kind!r}")
