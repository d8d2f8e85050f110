"""What the page refuses, and that a refusal stores nothing, tells nothing, and is logged without the token."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lm_gym.errors import WriteError
from lm_gym.reward_models import Question
from lm_gym.reward_models.human import LabelStore, ask_questions, make_link, revoke_links
from lm_gym.reward_models.human.page.access import RateLimit
from lm_gym.reward_models.human.page.application import create_app
from lm_gym.reward_models.human.page.guard import Guard, host_name
from lm_gym.reward_models.human.page.settings import PageSettings

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\u202eevil\u202c\u2066\u2069",
    "\x00\x07\x1b[2J\x7f\x9b",
    "x" * 1_000_000,
]


@pytest.fixture
def body(page: Any, ask: Callable[..., Any]) -> dict[str, Any]:
    """A good answer, not yet sent."""
    ask("choice")
    verdict = {"kind": "choice", "winner": "a"}
    return {"id": str(uuid.uuid4()), "showing": page.next()["showing"], "kind": "judged", "verdict": verdict}


@pytest.fixture
def nothing_new(store: LabelStore, body: dict[str, Any]) -> Callable[[], bool]:
    before = len(store.events())
    return lambda: len(store.events()) == before


def test_the_good_answer_is_good(page: Any, body: dict[str, Any], nothing_new: Callable[[], bool]) -> None:
    """Without this, the refusals below would prove nothing."""
    assert page.post("/api/answers", body).status_code == 200
    assert not nothing_new()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8713"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "file://127.0.0.1:8712"}, 403),
        ({"Origin": None}, 403),
        ({"X-CSRF-Token": None}, 403),
        ({"X-CSRF-Token": "0" * 64}, 403),
        ({"X-CSRF-Token": "\xe4".encode("latin-1")}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example:8712", "Origin": "http://evil.example:8712"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Host": "user@127.0.0.1"}, 400),
        ({"Host": ""}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": None}, 415),
        ({"Cookie": "lm_gym_00000000=wrong"}, 401),
    ],
    ids=str,
)
def test_a_forged_request_is_refused(
    page: Any, body: dict[str, Any], nothing_new: Callable[[], bool], headers: dict[str, Any], status: int
) -> None:
    if "Cookie" in headers:
        page.client.cookies.clear()
    changed = {"json": None, "content": json.dumps(body)}
    found = page.post("/api/answers", headers=headers, **changed)
    assert found.status_code == status
    assert set(found.json()) == {"error"}
    assert nothing_new()


def test_another_links_csrf_token_is_none(
    page: Any, visit: Callable[..., Any], body: dict[str, Any], nothing_new: Callable[[], bool]
) -> None:
    assert page.post("/api/answers", body, headers={"X-CSRF-Token": visit("Ben").csrf}).status_code == 403
    assert nothing_new()


def test_another_annotators_question_cannot_be_answered(
    visit: Callable[..., Any], body: dict[str, Any], nothing_new: Callable[[], bool]
) -> None:
    assert visit("Ben").post("/api/answers", body).status_code == 422
    assert nothing_new()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": NaN}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda content: repr(content[:12]),
)
def test_malformed_json_is_refused(page: Any, nothing_new: Callable[[], bool], content: bytes) -> None:
    found = page.post("/api/answers", json=None, content=content)
    assert found.status_code in (400, 422)
    assert set(found.json()) == {"error"}
    assert nothing_new()


@pytest.mark.parametrize(
    "change",
    [
        {"id": "not a uuid"},
        {"id": None},
        {"id": "A" * 36},
        {"showing": "00000000-0000-4000-8000-000000000000"},
        {"kind": "undone"},
        {"verdict": None},
        {"verdict": {"kind": "choice", "winner": "c"}},
        {"verdict": {"kind": "thumb", "up": True}},
        {"verdict": {"kind": "thumb", "up": 1}},
        {"verdict": {"kind": "ranks", "ranks": [1, 2]}},
        {"verdict": {"kind": "best_of", "best": 7}},
        {"verdict": {"kind": "choice", "winner": "a", "model": "x"}},
        {"comment": 7},
        {"comment": "x" * 20_001},
        {"comment": "\ud800"},
        {"overall_rating": 6},
        {"overall_rating": True},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"annotator": "person-000000000000"},
        {"<script>": 1},
    ],
    ids=lambda change: ascii(change)[:40],
)
def test_what_is_no_answer_is_refused(
    page: Any, body: dict[str, Any], nothing_new: Callable[[], bool], change: dict[str, Any]
) -> None:
    found = page.post("/api/answers", json=None, content=json.dumps(body | change))
    assert found.status_code == 422
    assert set(found.json()) == {"error"}
    assert "script" not in found.text
    assert nothing_new()


def test_a_body_is_measured_while_it_arrives(
    page: Any, body: dict[str, Any], nothing_new: Callable[[], bool], settings: PageSettings
) -> None:
    """Announced or not, and under a length that lies."""
    large = json.dumps(body | {"comment": "x" * settings.body_bytes}).encode()
    assert page.post("/api/answers", json=None, content=large).status_code == 413
    assert page.post("/api/answers", json=None, content=iter([large[:1000], large[1000:]])).status_code == 413
    lying = {"Content-Length": "10"}
    assert page.post("/api/answers", json=None, content=iter([large]), headers=lying).status_code == 413
    assert page.client.request("GET", "/api/progress", content=large).status_code == 413
    assert nothing_new()


def test_a_body_that_is_announced_too_large_is_not_read(settings: PageSettings) -> None:
    """And one that does not arrive in time is given up."""

    async def answer(length: int, seconds: float) -> int:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(seconds)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"127.0.0.1:8712"), (b"origin", b"http://127.0.0.1:8712")]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
        scope = {"type": "http", "method": "POST", "path": "/api/next", "headers": headers}

        async def nobody(*args: Any) -> None:
            pytest.fail("the application was asked")

        await Guard(nobody, settings=replace(settings, read_seconds=0.05))(scope, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(answer(settings.body_bytes + 1, 1000.0)) == 413
    assert asyncio.run(answer(10, 1000.0)) == 408


@pytest.mark.parametrize("path", ["/", "/overview", "/api/progress", "/api/overview", "/api/session", "/openapi.json"])
def test_nobody_gets_in_without_a_link(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert found.status_code == 401
    assert "own link" in found.text
    assert found.headers["content-type"].startswith("text/html" if path in ("/", "/overview") else "application/json")


def test_a_wrong_link_and_a_revoked_one(page: Any, store: LabelStore, body: dict[str, Any]) -> None:
    assert page.client.get("/join/wrong").status_code == 401
    assert page.client.get("/join/%ff%fe").status_code == 401
    revoke_links(store, "Ada")
    before = len(store.events())
    answered = page.post("/api/answers", body)
    assert answered.status_code == 403
    assert "revoked" in answered.json()["error"]
    assert len(store.events()) == before
    for path in ("/", f"/join/{page.token}"):
        found = page.client.get(path)
        assert found.status_code == 403
        assert "revoked" in found.text
        assert page.token not in found.text


def test_the_cookie_is_strict(page: Any) -> None:
    cookie = page.joined.headers["set-cookie"].lower()
    assert page.joined.status_code == 200
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/", page.token.lower()))
    assert page.token not in page.joined.text
    assert page.token not in page.client.get("/").text


@pytest.mark.parametrize("path", ["/", "/join/wrong", "/static/label.js", "/api/progress", "/nothing", "/static/../x"])
def test_every_response_is_closed_to_other_sites(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    ["/nothing/<script>", "/static/", "/static", "/static/secret.py", "/static/%2e%2e/routes.py", "/docs", "/.env"],
)
def test_there_is_no_other_page(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert found.status_code in (404, 405)
    assert set(found.json()) == {"error"}
    assert "script" not in found.text


def test_other_methods_are_refused(page: Any) -> None:
    for method, path in (("GET", "/api/answers"), ("HEAD", "/api/answers")):
        found = page.client.request(method, path)
        assert (found.status_code, found.headers["allow"]) == (405, "POST")
    found = page.client.delete(
        "/api/answers", headers={"Origin": "http://127.0.0.1:8712", "Content-Type": "application/json"}
    )
    assert (found.status_code, found.json()) == (405, {"error": "this page does not take that method"})


def test_a_refusal_is_logged_without_the_token(page: Any, store: LabelStore, caplog: pytest.LogCaptureFixture) -> None:
    revoke_links(store, "Ada")
    with caplog.at_level(logging.INFO, "lm_gym"):
        page.client.get(f"/join/{page.token}")
        page.client.get("/line%0Abreak")
        page.post("/api/next", headers={"Origin": "http://evil.example"})
    told = [one.getMessage() for one in caplog.records if one.name.startswith("lm_gym")]
    assert told[0].startswith("refused GET /join/...: this link was revoked")
    assert told[2] == "refused POST /api/next: the request comes from another site"
    assert len(told) == 3
    assert not any(page.token in one or "\n" in one for one in told)


def test_requests_of_a_link_are_limited(store: LabelStore) -> None:
    settings = PageSettings(requests_per_second=0.001, burst=5)
    with TestClient(create_app(store, settings), base_url="http://127.0.0.1:8712") as client:
        token = make_link(store, "Ada")
        client.get(f"/join/{token}")
        found = [client.get("/api/progress") for _ in range(6)]
        assert [one.status_code for one in found] == [200] * 4 + [429] * 2
        assert found[-1].headers["retry-after"] == "1"
        client.cookies.clear()
        assert [client.get("/api/progress").status_code for _ in range(6)] == [401] * 5 + [429]


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    limit = RateLimit(per_second=2, burst=3, clock=lambda: now[0])
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    assert limit.allows("b")
    now[0] = 0.5
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1:8712", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:8712", "::1"),
        ("[::1]", "::1"),
        ("a:b", ""),
        ("a:99999", ""),
        ("user@a", ""),
        ("a/b", ""),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_names_of_hosts(host: str, name: str) -> None:
    assert host_name(host) == name


def test_whom_it_answers() -> None:
    assert PageSettings().answers("localhost")
    assert PageSettings().answers("::1")
    assert not PageSettings().answers("192.168.1.7")
    everywhere = PageSettings(host="0.0.0.0", allowed_hosts=("Labels.example",))
    assert everywhere.answers("192.168.1.7")
    assert everywhere.answers("labels.example")
    assert not everywhere.answers("evil.example")
    assert not everywhere.answers("")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:24])
def test_hostile_texts_come_out_as_they_went_in(page: Any, store: LabelStore, text: str) -> None:
    """As JSON strings, that is; how a browser shows them is tested in one."""
    ask_questions(store, [Question.of(text, [text, "other"])], kind="choice")
    found = page.post("/api/next")
    assert found.headers["content-type"] == "application/json"
    assert text in found.json()["responses"]
    assert found.json()["prompt"] == text


def test_a_hostile_name_is_escaped(visit: Callable[..., Any]) -> None:
    text = visit("<script>alert(1)</script>").client.get("/").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_full_disk_is_told_so_that_the_page_sends_again(
    page: Any, store: LabelStore, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **rest: Any) -> bool:
        raise WriteError("labels.db: nothing was stored (disk full); make room")

    monkeypatch.setattr("lm_gym.reward_models.human.page.service.judge", full)
    found = page.post("/api/answers", body)
    assert (found.status_code, found.headers["retry-after"]) == (503, "2")
    assert "labels.db" not in found.text


def test_an_error_of_ours_is_plain_and_closed(page: Any, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **rest: Any) -> bool:
        raise KeyError("secret")

    monkeypatch.setattr("lm_gym.reward_models.human.page.service.judge", broken)
    found = page.post("/api/answers", body)
    assert (found.status_code, set(found.json())) == (500, {"error"})
    assert "secret" not in found.text
    assert "content-security-policy" in found.headers
