"""The admin service of a running daemon: only root and the user who runs it get in."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

import model_loader as ml
from model_loader._address import addresses, check_socket, network_address, require_linux
from model_loader.errors import from_failure
from model_loader_wire.causes import Cause, Failure, printable
from model_loader_wire.v1 import admin_pb2_grpc as pb_grpc
from model_loader_wire.v1 import model_loader_pb2 as model_pb

from ..exits import NoService
from ..service import Place, running_service

SOCKET = "admin.sock"
SECONDS = 10.0
"""A live service answers within this time, but for what a call itself waits for."""
ERROR_KEY = "model-loader-error-bin"
CREDENTIALS = struct.Struct("3i")
ROOT = 0

Stub = Any
"""gRPC's stub of the admin service, which has no types."""


@contextmanager
def administered(address: str | None) -> Iterator[tuple[Path, Stub]]:
    """Connect to the admin service of the daemon that runs; gives its directory and the stub.

    Raises NoService where no daemon runs, SecurityError for a user who may not steer it.
    """
    require_linux()
    if (network := network_address(address)) is not None:
        raise NoService(f"the service at {network} is steered on its own machine alone")
    candidates = [item for item in addresses(address) if item.explicit or item.directory.is_dir()]
    for candidate in candidates:
        path = candidate.directory / SOCKET
        try:
            check_admin_socket(path)
        except ml.NetworkError:
            continue
        with _stub(path) as stub:
            yield candidate.directory, stub
        return
    looked = " and ".join(str(item.directory) for item in addresses(address))
    raise NoService(
        f"no model-loaderd with an admin socket is running (looked in {looked}); private services "
        "have none"
    )


@contextmanager
def seen(address: str | None) -> Iterator[tuple[Place, ml.Connection | None, Stub]]:
    """Connect to the service that runs: to its admin service, or for others as a program does.

    Gives where it is, and one of the two; the other is None. An administrator need not be a user of
    the service: the machine's serves root only if a policy says so. Raises NoService where none
    runs.
    """
    with ExitStack() as stack:
        try:
            directory, admin = stack.enter_context(administered(address))
        except (NoService, ml.SecurityError):
            place, connection = stack.enter_context(running_service(address))
            yield place, connection, None
        else:
            yield directory, None, admin


@contextmanager
def administered_there(place: Place) -> Iterator[Stub | None]:
    """Connect to the admin service of a service that is known; None for who may not steer it."""
    if not isinstance(place, Path):
        yield None
        return
    path = place / SOCKET
    try:
        check_admin_socket(path)
    except (ml.NetworkError, ml.SecurityError):
        yield None
        return
    with _stub(path) as stub:
        yield stub


def check_admin_socket(path: Path) -> None:
    """Check that the socket is there, that this user may open it, and who listens.

    Root may steer everybody's service. Raises NetworkError where nobody answers, SecurityError for
    what may not be.
    """
    if os.geteuid() != ROOT:
        check_socket(path)
    elif not path.is_socket():
        raise ml.NetworkError(f"no Model Loader service is at {path.parent}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(SECONDS)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise ml.SecurityError(
                f"the service at {path.parent} is steered by root and by the user who runs it, "
                f"not by uid {os.geteuid()}"
            ) from None
        except OSError as error:
            raise ml.NetworkError(
                f"no Model Loader service answers at {path.parent}: {error.strerror or error}"
            ) from None
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(data)
    if os.geteuid() not in (uid, ROOT) and uid != ROOT:
        raise ml.SecurityError(
            f"the service at {path.parent} runs as uid {uid}, not as you or root"
        )


@contextmanager
def _stub(path: Path) -> Iterator[Stub]:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            yield pb_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise _error_of(error) from None


def _error_of(error: grpc.RpcError) -> ml.ModelLoaderError:
    """Make the library's error of a failed call."""
    metadata: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in metadata or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            detail = model_pb.ErrorDetail.FromString(value)
            cause = Cause(detail.cause) if detail.cause in set(Cause) else Cause.INTERNAL
            return from_failure(Failure(cause, printable(detail.message)))
    details = error.details() if hasattr(error, "details") else str(error)
    return ml.NetworkError(f"the service did not answer: {printable(details or 'it has ended')}")
