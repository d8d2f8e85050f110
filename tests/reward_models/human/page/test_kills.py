"""A server that is killed again and again under a client that sends labels: what was acknowledged is there, once."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

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


class Client:
    """Sends each answer until it is acknowledged, as the page's queue does."""

    def __init__(self, port: int, cookie: str, csrf: str) -> None:
        self._port = port
        self._headers = {"Cookie": cookie, "X-CSRF-Token": csrf, "Content-Type": "application/json"}
        self._headers["Origin"] = f"http://127.0.0.1:{port}"
        self.acknowledged: dict[str, str] = {}
        self.tries = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            found = self._until_told("/api/next", {})
            if found is None or found["item"] is None:
                return
            body = {"id": str(uuid.uuid4()), "showing": found["showing"], "kind": "judged"}
            body["verdict"] = {"kind": "choice", "winner": "a"}
            if self._until_told("/api/answers", body) is not None:
                self.acknowledged[body["id"]] = found["showing"]

    def _until_told(self, path: str, body: Any) -> Any:
        while not self.over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.tries += 1
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("POST", path, json.dumps(body), self._headers)
                    response = connection.getresponse()
                    text = response.read()
                assert response.status == 200, text
                return json.loads(text)
            time.sleep(0.01)
        return None


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_of_the_server(tmp_path: Path, kills: int) -> None:
    place = tmp_path / "killed.db"
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    settings = PageSettings(port=port, requests_per_second=10_000.0, burst=10_000)
    with LabelStore.open(place) as store:
        set_rules(store, LabelRules(repeat_share=0, check_share=0))
        asked = [Question.of(f"prompt {number}", ["a", "b"]) for number in range(30 * kills)]
        ask_questions(store, asked, kind="choice")
        token = make_link(store, "Ada")
        cookie = f"lm_gym_{store.sign('page', 'store')[:8]}={token}"
        with serve_in_process(place, settings):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", "/api/session", headers={"Cookie": cookie})
                csrf = json.loads(connection.getresponse().read())["csrf"]
        client = Client(port, cookie, csrf)
        thread = threading.Thread(target=client.run)
        thread.start()
        moments = random.Random(0)
        for _ in range(kills):
            server = serve_in_process(place, settings)
            time.sleep(moments.uniform(0.0, 0.25))
            server.process.kill()
            server.stop()
        client.over.set()
        thread.join(30)
        with store.reading() as state:
            stored = {answer.id: answer.showing.id for answer in state.answers()}
            assert len({answer.showing.item for answer in state.answers()}) == len(stored)
    assert client.acknowledged.items() <= stored.items()
    assert len(stored) - len(client.acknowledged) <= 1, "the last one may have been stored without an acknowledgement"
    assert len(client.acknowledged) >= kills
