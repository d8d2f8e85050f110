"""A store with items of every kind, people with links, and a client that behaves as the page does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import LabelRules, LabelStore, ask_questions, make_link, set_rules
from lm_gym.reward_models.human.page.application import create_app
from lm_gym.reward_models.human.page.settings import PageSettings
from lm_gym.reward_models.judgements.record import Response

BASE = "http://127.0.0.1:8712"


class Page:
    """What a browser does, without one."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client = client
        self.token = token
        self.joined = client.get(f"/join/{token}")
        self.csrf = client.get("/api/session").json().get("csrf", "")

    def post(self, path: str, body: Any = None, **changed: Any) -> Any:
        headers = {"Origin": BASE, "X-CSRF-Token": self.csrf, "Content-Type": "application/json"}
        headers |= changed.pop("headers", {})
        kept = {name: value for name, value in headers.items() if value is not None}
        return self.client.post(path, **({"json": {} if body is None else body} | changed), headers=kept)

    def next(self) -> dict[str, Any]:
        return self.post("/api/next").json()

    def answer(self, verdict: dict[str, Any] | None, showing: str | None = None, **rest: Any) -> Any:
        body = {"id": str(uuid.uuid4()), "showing": showing or self.next()["showing"], "kind": "judged"}
        return self.post("/api/answers", body | {"verdict": verdict} | rest)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.open(tmp_path / "labels.db") as made:
        set_rules(made, LabelRules(repeat_share=0, check_share=0))
        yield made


@pytest.fixture
def ask(store: LabelStore) -> Callable[..., list[str]]:
    """Put questions of one kind, whose responses name their own places."""

    def make(kind: str, count: int = 1, responses: int = 2, prompt: str = "prompt") -> list[str]:
        questions = [
            Question(
                prompt=f"{prompt} {number}",
                responses=tuple(
                    Response(text=f"{number}.{place}", model=f"secret-model-{place}", version="secret-version")
                    for place in range(responses)
                ),
            )
            for number in range(count)
        ]
        return ask_questions(store, questions, kind=kind)

    return make


@pytest.fixture
def settings() -> PageSettings:
    return PageSettings(requests_per_second=1000.0, burst=1000)


@pytest.fixture
def client(store: LabelStore, settings: PageSettings) -> Iterator[TestClient]:
    with TestClient(create_app(store, settings), base_url=BASE, follow_redirects=False) as made:
        yield made


@pytest.fixture
def page(store: LabelStore, client: TestClient) -> Page:
    return Page(client, make_link(store, "Ada"))


@pytest.fixture
def visit(store: LabelStore, settings: PageSettings) -> Callable[..., Page]:
    """Further people, each with a browser of their own."""

    def make(name: str, role: Any = "annotator") -> Page:
        client = TestClient(create_app(store, settings), base_url=BASE, follow_redirects=False)
        return Page(client, make_link(store, name, role=role))

    return make
