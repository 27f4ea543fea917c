"""What the service manager is told, by the words of sd_notify(3)."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loader_service.broker.service_manager import ServiceManager
from loader_service.writer import small
from tests.support.notified import Notified
from tests.support.processes import children
from tests.support.raw_client import HANG_SECONDS, RawSession


@contextmanager
def receiver(path: str) -> Iterator[socket.socket]:
    """A socket as a service manager has one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(path)
        made.settimeout(HANG_SECONDS)
        yield made


@pytest.mark.parametrize("abstract", [False, True])
def test_what_is_told_comes_as_lines(short_folder: Path, abstract: bool) -> None:
    address = f"@model-loader-{os.getpid()}" if abstract else str(short_folder / "notify")
    with receiver(address.replace("@", "\0")) as manager:
        told = ServiceManager(address)
        told.ready("well")
        assert manager.recv(1000) == b"READY=1\nSTATUS=well"
        told.alive()
        assert manager.recv(1000) == b"WATCHDOG=1"
        told.stopping(2.5, "ending")
        assert manager.recv(1000) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000\nSTATUS=ending"
        told.reloading()
        first, second = manager.recv(1000).split(b"\n")
        assert first == b"RELOADING=1"
        assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0


@pytest.mark.parametrize("address", [None, "/no/such/socket", "vsock:2:1234", ""])
def test_nobody_who_hears_is_no_error(address: str | None) -> None:
    ServiceManager(address).ready("well")


def test_a_manager_that_does_not_read_holds_up_nothing(short_folder: Path) -> None:
    path = str(short_folder / "notify")
    with receiver(path):
        manager = ServiceManager(path)
        for _ in range(10_000):  # more than a socket's queue holds
            manager.alive()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_as_the_environment_says(
    variables: dict[str, str], seconds: float | None
) -> None:
    environment = {"NOTIFY_SOCKET": "/run/notify", "HOME": "/", **variables}
    assert ServiceManager.of_environment(environment).ping_seconds == seconds
    assert environment == {"HOME": "/"}  # what the service starts is not to speak for it


def test_a_daemon_is_ready_alive_reloaded_and_stopping(short_folder: Path) -> None:
    with Notified(short_folder, watchdog_seconds=0.6) as daemon:
        # Whoever hears of it can attach and load, at once.
        daemon.wait_for("READY=1")
        with RawSession(daemon.directory) as session:
            assert session.load(small.add()).model_id
            daemon.wait_for("WATCHDOG=1", "STATUS=ready; models: 1")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("RELOADING=1", "READY=1")
        daemon.process.terminate()
        daemon.wait_for("STOPPING=1")
        assert daemon.process.wait(HANG_SECONDS) == 0


def test_no_word_for_the_watchdog_while_no_zygote_answers(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_LOADER_SERVICE_SPAWN_SECONDS", "600")
    with Notified(short_folder, watchdog_seconds=0.3) as daemon:
        daemon.wait_for("READY=1", "WATCHDOG=1")
        (zygote,) = children(daemon.process.pid)
        os.kill(zygote, signal.SIGSTOP)
        try:
            # One ping may have been under way.
            daemon.wait_for_silence(2)
        finally:
            os.kill(zygote, signal.SIGCONT)
        daemon.wait_for("WATCHDOG=1")
        # One that is dead is replaced, and then there are answers again.
        os.kill(zygote, signal.SIGKILL)
        deadline = time.monotonic() + HANG_SECONDS
        while children(daemon.process.pid) in ([], [zygote]):
            assert time.monotonic() < deadline
            daemon.is_silent_for(0.05)
        # The first may have been on its way; three come in a period.
        daemon.wait_for(*["WATCHDOG=1"] * 4)
