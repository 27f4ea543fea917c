"""Whether a service runs that programs of this user would use, and whether it is well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import model_loader as ml
from model_loader._address import VARIABLE
from model_loader_wire.v1 import admin_pb2 as pb

from ..exits import NoService
from ..service import running_service
from ..steering.admin import administered_there


@dataclass(frozen=True, slots=True)
class Daemon:
    """The running service, or why there is none; both are in order, unless there are problems."""

    directory: str | None
    version: str
    detail: str
    problems: tuple[str, ...] = ()
    """What keeps this user, or everybody, from using the one that runs."""


def look_for_daemon(address: str | None) -> Daemon:
    """Open a session there, as a program would."""
    try:
        with running_service(address) as (directory, connection):
            version = connection.service_version
            count = len(connection.models())
            detail = f"version {version} at {directory}, with {count} models of this user"
            problems = tuple(_problems_of(directory)) if isinstance(directory, Path) else ()
            return Daemon(str(directory), version, detail, problems)
    except NoService as error:
        if address is not None or os.environ.get(VARIABLE):
            return Daemon(
                None, "", "none where one was named: programs look nowhere else", (str(error),)
            )
        return Daemon(
            None, "", "none; programs get private ones, model-loaderd starts a shared one"
        )
    except ml.ModelLoaderError as error:
        detail = f"{type(error).__name__}: {error.message}"
        return Daemon(None, "", "there is one that this user cannot use", (detail,))


def _problems_of(directory: Path) -> Iterator[str]:
    """Ask the service itself, if this user may; who may not is told nothing."""
    with administered_there(directory) as admin:
        if admin is None:
            return
        status = admin.Status(pb.StatusRequest())
    if status.draining:
        yield "it is draining: it takes no more models, and ends when those that it has are gone"
    elif not status.ready:
        yield "it can make no worker just now: its log says why"
    for item in status.missing:
        yield f"its workers do without the layer {item.layer}: {item.reason}"
