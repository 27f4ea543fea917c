"""What is told of the TCP port: its settings, and the credentials that its files hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

FILES = ("certificate", "key", "client_ca", "tokens")
"""Settings that name files."""
POSITIVE = ("connections", "calls_on_a_connection", "idle_seconds", "keepalive_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """The port that programs of other machines use; without `listen` there is none."""

    listen: str | None = None
    """An address of this machine and a port, such as ``127.0.0.1:8500`` or ``[::1]:8500``; None: no
    port is opened. Port 0 is any free one, which the log tells."""
    certificate: str | None = None
    """File with the service's certificate, and those between it and its authority, in PEM."""
    key: str | None = None
    """File with the certificate's private key, in PEM and without a passphrase."""
    client_ca: str | None = None
    """File with the authorities whose certificates clients must show, in PEM; None: clients show
    none, and need a token."""
    tokens: str | None = None
    """File with the tokens' names and digests, a line for each; None: there are none."""
    connections: int = 64
    """Connections to the port at a time, of all clients; one more is closed at once."""
    calls_on_a_connection: int = 256
    """Calls on one of them at a time, open sessions included; further ones wait at the client."""
    idle_seconds: int = 30
    """How long a connection may be open without a call; an open session is one."""
    keepalive_seconds: int = 60
    """How often a silent client is asked for a sign of life; without one its sessions end."""
    age_seconds: int | None = None
    """How long a connection, and with it its sessions and their models, may last; None: no limit.
    A client's certificate is looked at when it connects, and not again."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; raises ValueError. What is missing is found elsewhere."""
        if self.listen is not None:
            host_and_port(self.listen)
        for name in FILES:
            path = getattr(self, name)
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{name} must be an absolute path, not {path!r}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above zero, not {getattr(self, name)}")
        if self.age_seconds is not None and self.age_seconds <= 0:
            raise ValueError(f"age_seconds must be above zero, not {self.age_seconds}")

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach the port."""
        return self.listen is None or host_and_port(self.listen)[0].is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the files hold; never shown."""

    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    client_ca: bytes | None = field(repr=False)
    tokens: Mapping[bytes, str] = field(repr=False)
    """The names of the tokens by their SHA-256."""


def host_and_port(listen: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Read where to listen; raises ValueError for what is no address and port."""
    # Most services have no port, and a private one is to start quickly.
    from ipaddress import ip_address

    host, colon, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        address = None
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else -1
    if not colon or address is None or (address.version == 6) == (bare == host):
        raise ValueError(
            f"listen must be an address of this machine and a port, such as 127.0.0.1:8500 or "
            f"[::1]:8500, not {listen!r}; a name, or no address, is not enough"
        )
    if not 0 <= number < 65536:
        raise ValueError(f"listen has no port {port!r}; there are 0 to 65535")
    return address, number
