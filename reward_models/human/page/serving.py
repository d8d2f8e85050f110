"""A server of the labelling page in this process, until it is told to stop.

Knows: sockets, signals and uvicorn. Does not know: who started it, or what is printed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm_gym.errors import ConfigError
from lm_gym.runs.signals import StopRequest, stopping_at_signals
from lm_gym.tools.extras import require

from ..store.event_store import LabelStore
from .settings import PageSettings

__all__ = ["serve", "url_of"]

GRACE_SECONDS = 5
"""Time for requests under way when the server is told to stop."""
PURPOSE = "labelling page"


def serve(
    place: str | Path, settings: PageSettings | None = None, *, on_ready: Callable[[str], None] = lambda url: None
) -> int | None:
    """Serve the labelling page of a store until SIGINT, SIGTERM or SIGHUP; a second SIGINT ends it at once.

    Args:
        place: of the label store, see :meth:`~lm_gym.reward_models.human.LabelStore.open`.
        settings: None for the defaults.
        on_ready: called with the address once it answers.

    Returns: the number of the signal that stopped it.

    Raises:
        ConfigError: the address cannot be listened on.
        MissingExtraError: a package of the extra ``human`` is not installed.
        ArtifactError, WriteError: see the store.
    """
    for module in ("fastapi", "jinja2", "uvicorn"):
        require(module, extra="human", purpose=PURPOSE)
    from .application import create_app

    settings = settings or PageSettings()
    with LabelStore.open(place) as store, _listening(settings) as listener, stopping_at_signals() as request:
        port = listener.getsockname()[1]
        server = _server(create_app(store, settings), request, lambda: on_ready(url_of(settings.host, port)))
        server.run(sockets=[listener])
        return request.signal


def url_of(host: str, port: int) -> str:
    """The address of a server. One that listens everywhere is named by its loopback address."""
    name = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@contextlib.contextmanager
def _listening(settings: PageSettings) -> Iterator[socket.socket]:
    host = "0.0.0.0" if settings.host == "*" else settings.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, settings.port), family=family, backlog=256)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(
            f"labelling page: cannot listen on {host}, port {settings.port} ({reason}); name another port (0 takes one "
            "that is free)"
        ) from error
    with listener:
        yield listener


def _server(app: Any, request: StopRequest, ready: Callable[[], None]) -> Any:
    uvicorn = require("uvicorn", extra="human", purpose=PURPOSE)

    class Server(uvicorn.Server):  # type: ignore[name-defined]
        """A server that tells when it answers, and leaves signals to whoever runs it."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                ready()

        async def on_tick(self, counter: int) -> bool:
            return bool(request) or await super().on_tick(counter)

        def capture_signals(self) -> Any:
            return contextlib.nullcontext()

    config = uvicorn.Config(
        app,
        log_config=None,  # the program's own logging, and no access log, which would hold the tokens of links
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=32 * 1024,
    )
    return Server(config)
