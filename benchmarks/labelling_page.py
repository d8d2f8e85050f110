"""The labelling page under many annotators: time until an answer is acknowledged, and whether all are stored once.

    python -m benchmarks.labelling_page [--people 20] [--questions 2000] [--seconds 0]

Every person is a thread with a connection of its own, which asks for the next question, thinks for some seconds, and
answers; an owner looks at the overview meanwhile. The server runs in a process of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import (
    LabelRules,
    LabelStore,
    PageSettings,
    ask_questions,
    make_link,
    serve_in_process,
    set_rules,
)

PATHS = ("/api/next", "/api/answers", "/api/overview")


class Load(NamedTuple):
    """What was measured."""

    seconds: dict[str, list[float]]
    """Time of each call, sorted, by its path."""
    refused: int
    """Calls that were not answered with 200."""
    labels: int
    """Labels in the store afterwards."""
    wall_seconds: float
    """Time of the whole."""

    def quantile(self, path: str, share: float) -> float:
        """A quantile of the times of a path, in seconds."""
        times = self.seconds[path]
        return times[min(len(times) - 1, int(share * len(times)))]


class Person:
    """One annotator, or the owner, at a server."""

    def __init__(self, host: str, token: str, load: Load, refused: list[int]) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=60)
        self._load = load
        self._refused = refused
        self._headers: dict[str, str] = {"Origin": f"http://{host}", "Content-Type": "application/json"}
        response, _ = self._call("GET", f"/join/{token}")
        self._headers["Cookie"] = str(response.getheader("set-cookie")).partition(";")[0]
        self._headers["X-CSRF-Token"] = self._call("GET", "/api/session")[1]["csrf"]

    def _call(self, method: str, path: str, body: Any = None) -> tuple[http.client.HTTPResponse, Any]:
        start = time.perf_counter()
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        text = response.read()
        if path in PATHS:
            self._load.seconds[path].append(time.perf_counter() - start)
        if response.status != 200:
            self._refused.append(response.status)
        return response, json.loads(text) if path.startswith("/api/") else None

    def answer_all(self, think_seconds: float) -> None:
        """Answer until nothing is left."""
        while (found := self._call("POST", "/api/next", {})[1])["item"] is not None:
            time.sleep(think_seconds)
            said = {"kind": "judged", "verdict": {"kind": "choice", "winner": "a"}, "seconds": think_seconds}
            self._call("POST", "/api/answers", {"id": str(uuid.uuid4()), "showing": found["showing"], **said})

    def watch(self, over: threading.Event) -> None:
        """Look at the overview every other second, as its page does."""
        while not over.wait(2):
            self._call("GET", "/api/overview")

    def leave(self) -> None:
        """Close the connection."""
        self._connection.close()


def measure(*, people: int, questions: int, think_seconds: float) -> Load:
    """Let people answer questions at once."""
    load, refused = Load({path: [] for path in PATHS}, 0, 0, 0.0), []
    with tempfile.TemporaryDirectory() as folder, LabelStore.open(place := Path(folder) / "labels.db") as store:
        set_rules(store, LabelRules(repeat_share=0, check_share=0))
        asked = [Question.of(f"prompt {number}", [f"a {number}", f"b {number}"]) for number in range(questions)]
        ask_questions(store, asked, kind="choice")
        tokens = [make_link(store, f"person {number}") for number in range(people)]
        owner = make_link(store, "owner", role="owner")
        settings = PageSettings(port=0, requests_per_second=1000.0, burst=10_000)
        with serve_in_process(place, settings) as server:
            host, over = server.url.removeprefix("http://"), threading.Event()
            crowd = [Person(host, token, load, refused) for token in tokens]
            threads = [threading.Thread(target=one.answer_all, args=(think_seconds,)) for one in crowd]
            watcher = Person(host, owner, load, refused)
            watching = threading.Thread(target=watcher.watch, args=(over,))
            start = time.perf_counter()
            for thread in (*threads, watching):
                thread.start()
            for thread in threads:
                thread.join()
            wall = time.perf_counter() - start
            over.set()
            watching.join()
            for one in (*crowd, watcher):
                one.leave()
        with store.reading() as state:
            labels = sum(one.is_label for one in state.answers())
    times = {path: sorted(found) for path, found in load.seconds.items()}
    return Load(times, len(refused), labels, wall)


def main() -> None:
    """Measure as the command line says, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()
    load = measure(people=options.people, questions=options.questions, think_seconds=options.seconds)
    table = Table("call", "number", "median ms", "p95 ms", "longest ms")
    for path, times in load.seconds.items():
        if times:
            numbers = (load.quantile(path, 0.5), load.quantile(path, 0.95), times[-1])
            table.add_row(path, str(len(times)), *(f"{1000 * one:.0f}" for one in numbers))
    console = Console()
    console.print(table)
    console.print(
        f"{load.labels} of {options.questions} labels stored in {load.wall_seconds:.1f} s; {load.refused} calls refused"
    )


if __name__ == "__main__":
    main()
