"""The labelling page as an ASGI application: routes, what their errors mean, and the guard around them."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from lm_gym.errors import ArtifactError, DataError, WriteError

from ..store.event_store import LabelStore
from ..store.replay import AnsweredAlreadyError
from .access import RateLimit, RefusedError
from .guard import Guard, Problem, path_for_log, problem_body
from .overview import Overview
from .pages import render
from .routes import api, html
from .service import PageService
from .settings import PageSettings

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

UNREADABLE = Problem(400, "the request must hold one JSON object")
INVALID = Problem(422, "the request lacks a field, or has one that is unknown or out of range")
ANSWERED = Problem(409, "what was shown has an answer already")
UNFIT = Problem(422, "the answer does not fit what was shown")
NOT_STANDING = Problem(409, "the answer cannot be taken back: it does not stand")
NO_DATABASE = Problem(503, "the answer could not be stored; it stays in the page, which sends it again")
RETRY_SECONDS = "2"


def create_app(store: LabelStore, settings: PageSettings | None = None) -> FastAPI:
    """The application over an open store, which whoever opened it closes.

    Args:
        store: of the labels.
        settings: whom it answers, and how much it takes; None for the defaults.
    """
    settings = settings or PageSettings()
    app = FastAPI(title="lm-gym labelling page", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = PageService(store)
    app.state.overview = Overview(store)
    app.state.limit = RateLimit(per_second=settings.requests_per_second, burst=settings.burst)
    app.include_router(html)
    app.include_router(api)
    app.add_exception_handler(RefusedError, _of_access)
    app.add_exception_handler(RequestValidationError, _of_fields)
    app.add_exception_handler(HTTPException, _of_routing)
    app.add_exception_handler(DataError, _of_store)
    app.add_exception_handler(WriteError, _of_database)
    app.add_exception_handler(ArtifactError, _of_database)
    app.add_middleware(Guard, settings=settings)
    return app


async def _of_access(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _refuse(request, error.problem)


async def _of_fields(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    malformed = any(one["type"] == "json_invalid" for one in error.errors())
    return _refuse(request, UNREADABLE if malformed else INVALID)


async def _of_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is no such page", 405: "this page does not take that method", 400: UNREADABLE.error}
    response = _refuse(request, Problem(error.status_code, known.get(error.status_code, "the request is refused")))
    response.headers.update(error.headers or {})
    return response


async def _of_store(request: Request, error: Exception) -> Response:
    if isinstance(error, AnsweredAlreadyError):
        return _refuse(request, ANSWERED)
    logger.info("the store refused: %s", ascii(str(error)[:300]))
    return _refuse(request, NOT_STANDING if request.url.path == "/api/undo" else UNFIT)


async def _of_database(request: Request, error: Exception) -> Response:
    logger.error("the store cannot be used: %s", error)
    response = _refuse(request, NO_DATABASE)
    response.headers["retry-after"] = RETRY_SECONDS
    return response


def _refuse(request: Request, problem: Problem) -> Response:
    """A refusal: a page for people, JSON for the page's own calls."""
    logger.warning("refused %s %s: %s", request.method, path_for_log(request.url.path), problem.error)
    path = request.url.path
    if request.method == "GET" and (path in ("/", "/overview") or path.startswith("/join/")):
        return HTMLResponse(render("refused", reason=problem.error), problem.status)
    response = Response(problem_body(problem), problem.status, media_type="application/json")
    if problem.status == 429:
        response.headers["retry-after"] = "1"
    return response
