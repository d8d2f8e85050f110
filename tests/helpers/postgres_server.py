"""A PostgreSQL server of its own for a test run, from the system's packages; nothing of the machine's is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "postgres"


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; None where they are not installed."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


def why_not() -> str | None:
    """Why no server can be started here; None if one can."""
    if programs() is None:
        return "PostgreSQL's server is not installed (Debian's package: postgresql)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL refuses to run as root, and there is no runuser"
    return None


@contextmanager
def server() -> Iterator[str]:
    """A running server that listens on a socket alone. Yields: the folder of its socket."""
    bin = programs()
    assert bin is not None
    folder = Path(tempfile.mkdtemp(prefix="lm-gym-pg-"))  # not below pytest's folders, which others may not enter
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, ACCOUNT, ACCOUNT)
        prefix = ["runuser", "-u", ACCOUNT, "--"]

    def call(program: str, *arguments: str) -> None:
        command = [*prefix, str(bin / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/")

    data = folder / "data"
    call("initdb", "-D", str(data), "-A", "trust", "-U", ACCOUNT, "--no-sync")
    settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=50"
    call("pg_ctl", "-D", str(data), "-o", settings, "-l", str(folder / "log"), "-w", "start")
    try:
        yield str(folder)
    finally:
        call("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
