"""The hub, asked only while its name can be resolved."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

__all__ = ["asking_the_hub"]


@contextmanager
def asking_the_hub() -> Iterator[None]:
    """A block that may ask the hub. While its name cannot be resolved, only files that were fetched before are read.

    Otherwise every file would be asked for six times in half a minute, with a warning each time.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not (before or getproxies()):  # a proxy resolves names by itself
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
