"""The service behind a command: the one that runs, or a private one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

import model_loader as ml
from model_loader._address import (
    VARIABLE,
    NetworkAddress,
    addresses,
    network_address,
    require_linux,
)
from model_loader_wire.limits import DEFAULT_LIMITS

from .exits import NoService
from .options import credentials_given

Place = Path | NetworkAddress
"""Where a service is: the directory of its sockets, or a port of the network."""


@contextmanager
def service(
    address: str | None,
    *,
    runtime: str = "auto",
    limits: ml.Limits | None = None,
    private: bool = False,
    devices: Sequence[str] = (),
) -> Iterator[ml.Connection]:
    """Connect to the service that a program would use; a private one ends with the block.

    A runtime by name, limits above the usual ones, and devices that must be enabled need a private
    service, which is started for them unless the user named a service. Raises NoService where there
    is none and none can be started, UsageError for a runtime that the named service cannot be asked
    for.
    """
    named = address is not None or bool(os.environ.get(VARIABLE))
    if named and runtime != "auto" and not private:
        raise click.UsageError(
            f"--runtime {runtime} needs a private service: leave out --address and unset {VARIABLE}"
        )
    try:
        if private or (not named and (runtime != "auto" or _above_usual(limits) or devices)):
            connection = ml.embed(limits=limits, runtime=runtime, devices=devices)
        else:
            connection = ml.connect(address, **credentials_given())
    except (ml.ConstraintError, ml.SecurityError):
        raise
    except ml.ModelLoaderError as error:
        raise NoService(error.message) from error
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def running_service(address: str | None) -> Iterator[tuple[Place, ml.Connection]]:
    """Connect to a service that runs already; raises NoService where there is none."""
    if (network := network_address(address)) is not None:
        with service(address) as connection:
            yield network, connection
        return
    require_linux()
    candidates = addresses(address)
    for candidate in candidates:
        if not candidate.explicit and not candidate.directory.is_dir():
            continue
        try:
            connection = ml.connect(candidate.directory)
        except ml.NetworkError:
            continue
        with connection:
            yield candidate.directory, connection
        return
    looked = " and ".join(str(candidate.directory) for candidate in candidates)
    start = f"model-loaderd --directory {looked}" if candidates[0].explicit else "model-loaderd"
    raise NoService(
        f"no Model Loader service is running (looked in {looked}); start one with: {start}"
    )


def _above_usual(limits: ml.Limits | None) -> bool:
    """Whether a limit is higher than a private service has unless it is told so."""
    usual = DEFAULT_LIMITS.set_values()
    return any(
        value > usual.get(name, value)
        for name, value in (limits or ml.Limits()).set_values().items()
    )
