"""The labelling page in a process of its own, so that it answers while this one trains.

The process ends with the one that started it, however that ends: it watches its standard input, which is a pipe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_gym.errors import ConfigError, LmGymError, RewardModelError
from lm_gym.tools.settings import Positive, checked

from .serving import serve
from .settings import PageSettings

__all__ = ["ServerProcess", "serve_in_process"]

STOP_SECONDS = 10


@dataclass(frozen=True)
class ServerProcess:
    """A server in a process of its own; stop it, or use ``with``."""

    url: str
    """Address of the page."""
    process: subprocess.Popen[bytes]
    """The process."""

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def runs(self) -> bool:
        """True until it has ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End it, after the requests under way. What was stored stays."""
        if self.runs:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def serve_in_process(
    place: str | Path, settings: PageSettings | None = None, *, timeout_seconds: float = 60.0
) -> ServerProcess:
    """Start a server of a store's labelling page, and wait until it answers.

    Args:
        place: of the store, a file or a URL; this process may have it open too.
        settings: None for the defaults.
        timeout_seconds: longest time that it may take to start.

    Raises:
        ConfigError: the address cannot be listened on, or the store is in this process's memory.
        RewardModelError: it ended or did not answer in time.
    """
    settings = checked("serve_in_process: settings", settings or PageSettings(), PageSettings)
    timeout = checked("serve_in_process: timeout_seconds", timeout_seconds, Positive)
    if str(place) == ":memory:":
        raise ConfigError("serve_in_process: the store must be a file or a URL, got one in memory; name a file")
    command = [sys.executable, "-m", __name__]
    # Ctrl-C is for the process that trains, which stops this one when it needs it no more: hence the own group.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    asked = {"place": str(place), "settings": asdict(settings)}
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        process.stdin.flush()
        told = _told(process, timeout)
    except BaseException:
        ServerProcess("", process).stop()
        raise
    if "url" in told:
        return ServerProcess(told["url"], process)
    ServerProcess("", process).stop()
    if "error" in told:
        raise ConfigError(str(told["error"]))
    raise RewardModelError(
        f"labelling page: the server must answer within {timeout:g} s, and it "
        f"{'did not' if told.get('late') else 'ended'}; its own messages say why"
    )


def _told(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
    """What the server says of itself: its address or an error; nothing if it ended."""
    assert process.stdout is not None
    line = _first_line(process.stdout.fileno(), time.monotonic() + timeout)
    told: dict[str, Any] = {"late": True} if line is None else json.loads(line or b"{}")
    return told


def _first_line(pipe: int, deadline: float | None = None) -> bytes | None:
    """The first line of a pipe; b"" at its end, None when the time is over."""
    found = b""
    while not found.endswith(b"\n"):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left)[0]:
            return None
        chunk = os.read(pipe, 4096)
        if not chunk:
            return b""
        found += chunk
    return found


def main() -> int:
    """Serve what the first line of standard input asks for, until it ends. Returns: the exit status."""
    asked = json.loads(_first_line(sys.stdin.fileno()) or b"{}")
    threading.Thread(target=_end_with_input, daemon=True).start()

    def tell(**said: str) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    try:
        serve(asked["place"], PageSettings(**asked["settings"]), on_ready=lambda url: tell(url=url))
    except LmGymError as error:
        tell(error=str(error))
        return 2
    return 0


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
