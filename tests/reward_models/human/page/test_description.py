"""The application against its own OpenAPI description: generated requests, good and bad, get what is described."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from fastapi.testclient import TestClient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis, of the development extra")
    from hypothesis import HealthCheck, settings

from lm_gym.reward_models import Question
from lm_gym.reward_models.human import LabelStore, ask_questions, make_link
from lm_gym.reward_models.human.page.application import create_app
from lm_gym.reward_models.human.page.settings import PageSettings

BASE = "http://127.0.0.1:8712"
STORE = LabelStore.open(":memory:")
APP = create_app(STORE, PageSettings(requests_per_second=1e6, burst=1_000_000))
TOKEN = make_link(STORE, "owner", role="owner")
SERVICE = APP.state.service
ask_questions(STORE, [Question.of(f"prompt {number}", ["a", "b"]) for number in range(200)], kind="choice")


async def described(scope: Any, receive: Any, send: Any) -> None:
    """The application, with its description where the generator looks for it."""
    if scope.get("path") != "/described.json":
        await APP(scope, receive, send)
        return
    body = json.dumps(APP.openapi()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


schema = schemathesis.openapi.from_asgi("/described.json", described)
HEADERS = {"Origin": BASE, "Host": "127.0.0.1:8712", "X-CSRF-Token": SERVICE.csrf(TOKEN)}
COOKIES = {f"lm_gym_{SERVICE.store_id}": TOKEN}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.CHECKS.get_one("status_code_conformance"),
    schemathesis.checks.CHECKS.get_one("content_type_conformance"),
    schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
    schemathesis.checks.CHECKS.get_one("negative_data_rejection"),
]


@schema.parametrize()
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_requests_get_what_is_described(case: Any) -> None:
    before = len(STORE.events())
    response = case.call(headers=HEADERS, cookies=COOKIES)
    case.validate_response(response, checks=CHECKS)
    if response.status_code >= 400:
        assert len(STORE.events()) == before


def test_the_requests_come_through() -> None:
    """Were each refused for its cookie or its host, the test above would say nothing."""
    client = TestClient(APP, base_url=BASE, cookies=COOKIES)
    found = {
        path: client.request(method, path, headers=HEADERS, json={} if method == "post" else None).status_code
        for path, methods in APP.openapi()["paths"].items()
        for method in methods
    }
    assert found == {
        "/api/answers": 422,
        "/api/next": 200,
        "/api/overview": 200,
        "/api/progress": 200,
        "/api/release": 200,
        "/api/session": 200,
        "/api/undo": 422,
    }
