"""What a connection over the network needs: whom to trust, and what to show.

gRPC verifies the service at each connection, and sends a token only behind that. It cannot tell why
a connection came to nothing; so one is tried before by the standard library, which can.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ._address import CREDENTIALS_FROM, NetworkAddress
from .errors import ConstraintError, NetworkError, SecurityError

if TYPE_CHECKING:
    import ssl

ANSWER_SECONDS = 10.0
"""A live service answers within this time."""
SHORTEST_TOKEN, LONGEST_TOKEN = 32, 4096
HTTP2 = "h2"
KEEPALIVE_OPTIONS = [
    # How often a silent service is asked for a sign of life, and how long it has to give one.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Else gRPC would ask no more after two, and a session may be silent for long.
    ("grpc.http2.max_pings_without_data", 0),
]

File = str | os.PathLike[str]


class Credentials(TypedDict, total=False):
    """What ``connect`` is given for the network."""

    ca: File | None
    certificate: File | None
    key: File | None
    token: str | None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, and a token; `check` and `credentials` read them."""

    ca: Path
    certificate: Path | None
    key: Path | None
    token: str | None = field(repr=False)

    def check(self, address: NetworkAddress) -> None:
        """Connect, show what there is to show, and leave: says why that fails, where it does.

        Raises SecurityError if one end does not trust the other, NetworkError where nobody answers,
        ConstraintError for files that cannot be used.
        """
        import ssl  # where it is used: most programs never reach for the network

        context = self._context()
        accepted = False
        try:
            there = (address.host, address.port)
            with (
                socket.create_connection(there, ANSWER_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=address.host) as secured,
            ):
                if secured.selected_alpn_protocol() != HTTP2:
                    raise NetworkError(f"no Model Loader service is at {address}: it has no HTTP/2")
                # A service that takes this client greets it; one that does not leaves.
                accepted = secured.version() == "TLSv1.3"
                if not secured.recv(1):
                    raise ConnectionResetError("the service left")
        except ssl.SSLCertVerificationError as error:
            raise SecurityError(
                f"the service at {address} does not prove to be {address.host}: "
                f"{error.verify_message}; nothing was sent"
            ) from None
        except TimeoutError:
            raise NetworkError(
                f"no Model Loader service answers at {address} within {ANSWER_SECONDS:g} s"
            ) from None
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
            alert = isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")
            if accepted or alert:
                raise SecurityError(self._refused(address)) from None
            raise NetworkError(
                f"the connection to {address} ended before TLS was agreed on: it may not be a "
                "Model Loader service, or have as many connections as it takes"
            ) from None
        except OSError as error:
            raise NetworkError(
                f"no Model Loader service answers at {address}: {error.strerror or error}"
            ) from None

    def credentials(self) -> Any:
        """Make gRPC's credentials; raises ConstraintError."""
        import grpc

        channel = grpc.ssl_channel_credentials(
            _content("ca", self.ca),
            None if self.key is None else _content("key", self.key),
            None if self.certificate is None else _content("certificate", self.certificate),
        )
        if self.token is None:
            return channel
        # gRPC refuses to send it where the service was not verified.
        return grpc.composite_channel_credentials(
            channel, grpc.access_token_call_credentials(self.token)
        )

    def _context(self) -> ssl.SSLContext:
        import ssl

        for name in ("ca", "certificate", "key"):
            if (path := getattr(self, name)) is not None:
                _content(name, path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([HTTP2])
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise ConstraintError(f"ca: {self.ca} holds no certificates in PEM") from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
            except ssl.SSLError as error:
                why = (
                    "the key is not that of the certificate"
                    if error.reason == "KEY_VALUES_MISMATCH"
                    else "they cannot be read as PEM"
                )
                raise ConstraintError(f"certificate and key: {why}") from None
        return context

    def _refused(self, address: NetworkAddress) -> str:
        if self.certificate is None:
            variables = f"{CREDENTIALS_FROM['certificate']} and {CREDENTIALS_FROM['key']}"
            return (
                f"the service at {address} asks its clients for a certificate, and none was given "
                f"(certificate=…, key=…, or {variables})"
            )
        return (
            f"the service at {address} refused the certificate {self.certificate}: it has expired, "
            "does not hold yet, is not meant for clients, or is of an authority that the service "
            "does not know"
        )


def open_channel(library: Any, target: str, tls: Tls | None, options: list[tuple[str, int]]) -> Any:
    """Make a channel of ``grpc``, or of ``grpc.aio``; without TLS only to a Unix socket."""
    if tls is None:
        return library.insecure_channel(target, options=options)
    more = [*options, *KEEPALIVE_OPTIONS]
    return library.secure_channel(target, tls.credentials(), options=more)


def tls_of(
    address: NetworkAddress | None,
    *,
    ca: File | None = None,
    certificate: File | None = None,
    key: File | None = None,
    token: str | None = None,
) -> Tls | None:
    """Put together what was given, and for the network what the environment says beside it.

    None for a service of this machine. Raises ConstraintError for what cannot be.
    """
    given = {"ca": ca, "certificate": certificate, "key": key, "token": token}
    if address is None:
        for name, value in given.items():
            if value is not None:
                raise ConstraintError(f"{name} is for services at tcp://HOST:PORT")
        return None
    paths = {name: _path(name, given[name]) for name in ("ca", "certificate", "key")}
    if token is None and (file := os.environ.get(CREDENTIALS_FROM["token"])):
        text = _content(CREDENTIALS_FROM["token"], Path(file)).decode("utf-8", "replace")
        token = text.strip()
    if paths["ca"] is None:
        raise ConstraintError(
            f"a service over the network is trusted by its authority alone: give ca=…, or "
            f"{CREDENTIALS_FROM['ca']}"
        )
    if (paths["certificate"] is None) != (paths["key"] is None):
        raise ConstraintError("certificate and key belong together")
    if token is not None:
        _check_token(token)
    return Tls(paths["ca"], paths["certificate"], paths["key"], token)


def lasting(credentials: Credentials) -> Credentials:
    """Return the files that were given, or the environment names, wherever the program goes.

    Which authority is trusted must not be another one because the working directory is.
    """
    found = Credentials(token=credentials.get("token"))
    for name in ("ca", "certificate", "key"):
        if (path := _path(name, credentials.get(name))) is not None:
            found[name] = path.absolute()
    return found


def _path(name: str, value: object) -> Path | None:
    if value is None:
        value = os.environ.get(CREDENTIALS_FROM[name]) or None
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not value:
        raise ConstraintError(f"{name} is the path of a file, not {type(value).__name__}")
    return Path(value)


def _check_token(token: object) -> None:
    # The token itself is in no message.
    if not isinstance(token, str):
        raise ConstraintError(f"token is a str, not {type(token).__name__}")
    visible = token.isascii() and token.isprintable() and " " not in token
    if not visible or not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
        raise ConstraintError(
            f"token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters of ASCII without spaces"
        )


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConstraintError(f"{name}: {path} cannot be read: {error.strerror}") from None


def _no_passphrase() -> str:
    raise ConstraintError("key: it has a passphrase, and nobody is there to give it")
