"""Settings of the labelling page: where it listens, whom it answers, and how much it takes."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from lm_gym.tools.settings import Bounds, Count, Positive, Text, settings

__all__ = ["PageSettings"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
Port = Annotated[int, Bounds(least=0, most=65535)]


@settings
class PageSettings:
    """Settings of the labelling page. Whatever they are, nobody gets in without the token of a link."""

    host: Text = "127.0.0.1"
    """Address to listen on; ``"0.0.0.0"`` or ``"::"`` for every network that the machine is in."""
    port: Port = 8712
    """Port; 0 for one that is free. Browsers keep unsent answers by address and port, so a fixed one is better."""
    allowed_hosts: tuple[Text, ...] = ()
    """Names under which people reach it, beside the address itself; other names are refused, against DNS rebinding."""
    body_bytes: Count = 256 * 1024
    """Most bytes of a request."""
    read_seconds: Positive = 20.0
    """Longest time that a request's body may take to arrive."""
    requests_per_second: Positive = 20.0
    """Requests of one link that are answered in the long run."""
    burst: Count = 100
    """Requests of one link that are answered at once."""

    @property
    def listens_everywhere(self) -> bool:
        """True for an address that stands for every network."""
        return self.host in ("0.0.0.0", "::", "*")

    @property
    def is_local(self) -> bool:
        """True if no other machine reaches it."""
        return self.host in LOOPBACK

    @property
    def host_names(self) -> frozenset[str]:
        """Names and addresses that a request may be meant for, in lower case and without brackets or ports."""
        own = (*LOOPBACK, *self.allowed_hosts, *(() if self.listens_everywhere else (self.host,)))
        return frozenset(name.lower().strip("[]") for name in own)

    def answers(self, name: str) -> bool:
        """True if a request for this host is answered.

        Where it listens everywhere, bare addresses pass too: a page of another site cannot have one as its name.
        """
        return name in self.host_names or (self.listens_everywhere and is_address(name))


def is_address(name: str) -> bool:
    """True for an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
