"""Routes of the labelling page. Those that touch the store are plain functions, which the server runs in threads."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from .access import Annotating, Changing, Owning, RefusedError, admit, cookie_name
from .bodies import (
    AnswerBody,
    Empty,
    NextBody,
    OverviewBody,
    ProblemBody,
    Progress,
    SessionBody,
    StoredBody,
    UndoBody,
    UndoneBody,
)
from .guard import Problem
from .overview import Overview
from .pages import render, static_file
from .service import PageService

__all__ = ["api", "html"]

COOKIE_SECONDS = 90 * 24 * 3600
NOT_FOUND = Problem(404, "there is no such page")

_REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemBody} for code in (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
}
html = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api", responses=_REFUSALS)


def _service(request: Request) -> PageService:
    service: PageService = request.app.state.service
    return service


@html.get("/join/{token}")
def join(request: Request, token: str) -> Response:
    """Let a person in by their link.

    The page navigates by itself: a Strict cookie is not sent along a redirect that began on another site (RFC 6265bis,
    section 5.2).
    """
    session = admit(request, token)
    response = HTMLResponse(render("join"))
    response.set_cookie(
        cookie_name(_service(request)),
        session.token,
        max_age=COOKIE_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@html.get("/")
def label_page(request: Request, session: Annotating) -> Response:
    """The page on which people answer."""
    return HTMLResponse(render("label", **_about(request, session)))


@html.get("/overview")
def overview_page(request: Request, session: Owning) -> Response:
    """The page on which the owner sees how far people are."""
    return HTMLResponse(render("overview", **_about(request, session)))


def _about(request: Request, session: Annotating) -> dict[str, str]:
    service = _service(request)
    link = session.link
    return {
        "csrf": service.csrf(session.token),
        "store": service.store_id,
        "annotator": link.annotator,
        "name": link.name,
        "role": link.role,
    }


@html.get("/static/{name}")
async def static(name: str) -> Response:
    """A file of the fixed list."""
    found = static_file(name)
    if found is None:
        raise RefusedError(NOT_FOUND)
    return Response(found[0], media_type=found[1])


@html.get("/openapi.json")
def description(request: Request, session: Owning) -> Response:
    """The OpenAPI description, for the owner."""
    return JSONResponse(request.app.openapi())


@api.get("/session")
def session_info(request: Request, session: Annotating) -> SessionBody:
    """Who asks, and the token that a change must carry; for clients that are no browser."""
    return SessionBody(name=session.link.name, role=session.link.role, csrf=_service(request).csrf(session.token))


@api.post("/next")
def next_item(request: Request, session: Changing, body: Empty) -> NextBody:
    """What the annotator is to answer now; asked again, it is the same until it is answered."""
    return _service(request).next(session.link.annotator)


@api.post("/answers", responses={409: {"model": ProblemBody}})
def answer(request: Request, session: Changing, body: AnswerBody) -> StoredBody:
    """Store an answer, once however often it is sent."""
    service = _service(request)
    new = service.answer(session.link.annotator, body)
    return StoredBody(again=not new, progress=service.progress(session.link.annotator))


@api.post("/undo", responses={409: {"model": ProblemBody}})
def undo(request: Request, session: Changing, body: UndoBody) -> UndoneBody:
    """Take an answer back; what it answered is next again."""
    service = _service(request)
    service.undo(session.link.annotator, body)
    return UndoneBody(progress=service.progress(session.link.annotator))


@api.post("/release")
def release(request: Request, session: Changing, body: Empty) -> Progress:
    """Let others have what the annotator has before them, while they pause."""
    service = _service(request)
    service.release(session.link.annotator)
    return service.progress(session.link.annotator)


@api.get("/progress")
def progress(request: Request, session: Annotating) -> Progress:
    """How far the annotator is."""
    return _service(request).progress(session.link.annotator)


@api.get("/overview")
def overview(request: Request, session: Owning) -> OverviewBody:
    """Numbers of the overview."""
    found: Overview = request.app.state.overview
    return OverviewBody(numbers=found.numbers())
