"""Where the service may be: a directory of sockets, or, by name only, a port of the network."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from model_loader_wire.system_service import ACCOUNT, is_system_user

from .errors import ConstraintError, NetworkError, NotSupportedError, SecurityError

VARIABLE = "MODEL_LOADER_ADDRESS"
SCHEMES = ("tcp://", "grpcs://")
"""How the address of a service of the network begins; both are the same."""
CREDENTIALS_FROM = {
    "ca": "MODEL_LOADER_TLS_CA",
    "certificate": "MODEL_LOADER_TLS_CERTIFICATE",
    "key": "MODEL_LOADER_TLS_KEY",
    "token": "MODEL_LOADER_TOKEN_FILE",
}
"""Where each is looked for that is not given; a token is in a file, which nobody else sees."""
ATTACH_SOCKET = "attach.sock"
DAEMON_DIRECTORY = "model-loader"
SYSTEM_DIRECTORY = Path("/run/model-loader")
INSTEAD = "ask who runs it, or leave the address out to get a private service"
"""What to do about a service that cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Address:
    """A socket directory; `explicit` ones must answer, the others are tried."""

    directory: Path
    explicit: bool


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """A port of a machine of the network."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as ``connect`` takes it."""
        return f"tcp://{self.target}"

    @property
    def target(self) -> str:
        """The same in gRPC's words."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def network_address(address: str | os.PathLike[str] | None) -> NetworkAddress | None:
    """Return the port that was named, also by the environment; None for what is no such address.

    Raises ConstraintError for one that cannot be.
    """
    given = address if address is not None else os.environ.get(VARIABLE)
    if not isinstance(given, str) or not given.startswith(SCHEMES):
        return None
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as whoever connects there does; raises UnicodeError
    except ValueError:
        host, port = None, None
    if not host or not port or "@" in parts.netloc or "".join(parts[2:]).strip("/"):
        raise ConstraintError(f"{given!r} is no address: give tcp://HOST:PORT")
    return NetworkAddress(host, port)


def require_linux() -> None:
    """Say in one sentence that this platform cannot do it."""
    if sys.platform != "linux":
        raise NotSupportedError(
            "Model Loader isolates models with mechanisms of the Linux kernel, so on "
            f"{sys.platform} it works only inside a Linux container or virtual machine."
        )


def addresses(address: str | os.PathLike[str] | None) -> list[Address]:
    """Return where to look, best first; raises ConstraintError for what is no address."""
    given = address if address is not None else os.environ.get(VARIABLE) or None
    if given is not None:
        return [Address(_directory(given), explicit=True)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = Path(runtime) if runtime else Path(f"/run/user/{os.getuid()}")
    return [
        Address(user / DAEMON_DIRECTORY, explicit=False),
        Address(SYSTEM_DIRECTORY, explicit=False),
    ]


def _directory(address: str | os.PathLike[str]) -> Path:
    try:
        text = os.fspath(address)
    except TypeError:
        raise ConstraintError(
            f"an address is a text or path, not {type(address).__name__}"
        ) from None
    if not isinstance(text, str) or not text:
        raise ConstraintError(f"an address is unix:/directory or a directory, not {text!r}")
    path = Path(text.removeprefix("unix://").removeprefix("unix:"))
    if "://" in text.removeprefix("unix://") or not path.is_absolute():
        raise ConstraintError(
            f"{text!r} is no address: give the absolute path of the service's socket directory, "
            "for example unix:/run/model-loader, or tcp://HOST:PORT for one of another machine"
        )
    return path


def check_socket(path: str | os.PathLike[str]) -> None:
    """Refuse a socket that somebody else could have put there (before a byte is sent to it).

    Raises SecurityError, NetworkError where there is none.
    """
    check_directory(Path(path).parent)
    if not stat.S_ISSOCK(_facts(Path(path)).st_mode):
        raise SecurityError(f"{path} is not a socket; {INSTEAD}")


def check_directory(directory: Path) -> None:
    """Refuse a directory in which somebody else could put something; raises as `check_socket`."""
    facts = _facts(directory.resolve())
    if not stat.S_ISDIR(facts.st_mode):
        raise SecurityError(f"{directory} is not a directory; {INSTEAD}")
    if not is_trusted(facts.st_uid) or facts.st_mode & 0o022:
        raise SecurityError(
            f"{directory} belongs to uid {facts.st_uid} with mode {facts.st_mode & 0o7777:o}; the "
            "service's directory must belong to you, to root or to the system's own account "
            f"{ACCOUNT!r}, and be writable by nobody else: "
            f"{INSTEAD}"
        )


def is_trusted(uid: int) -> bool:
    """Whether a service of this user is one's own or the machine's."""
    return uid == os.geteuid() or is_system_user(uid)


def _facts(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise NetworkError(
            f"no Model Loader service is at {path}: {error.strerror}; start model-loaderd, or "
            "leave the address out to get a private one"
        ) from None
