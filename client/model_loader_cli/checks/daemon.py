"""Whether a service runs that programs of this user would use."""

from __future__ import annotations

from dataclasses import dataclass

import model_loader as ml

from ..exits import NoService
from ..service import running_service


@dataclass(frozen=True, slots=True)
class Daemon:
    """The running service, or why there is none; both are in order."""

    directory: str | None
    version: str
    detail: str


def look_for_daemon(address: str | None) -> Daemon:
    """Open a session there, as a program would."""
    try:
        with running_service(address) as (directory, connection):
            version = connection.service_version
            count = len(connection.models())
            detail = f"version {version} at {directory}, with {count} models of this user"
            return Daemon(str(directory), version, detail)
    except NoService:
        return Daemon(
            None, "", "none; programs get private ones, model-loaderd starts a shared one"
        )
    except ml.ModelLoaderError as error:
        return Daemon(None, "", f"{type(error).__name__}: {error.message}")
