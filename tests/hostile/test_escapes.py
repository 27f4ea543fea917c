"""Attempts to get out of a worker: with every layer, with each layer alone, and with none.

With none the attempts succeed, which shows that they are real.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import pytest

import model_loader as ml
from loader_service.sandbox import landlock
from loader_service.sandbox.layers import Layer
from tests.hostile.attempts import ALONE, ATTEMPTS, KILLED, LANDLOCK_ABI, Attempt, Outcome
from tests.hostile.probes import Probe, ProbeService, all_but, only

pytestmark = pytest.mark.isolation

NAMED = {attempt.name: attempt for attempt in ATTEMPTS}
WRAPPED = ("connect", "read_process", "set_limit")
"""Attempts of several steps: functions of ``attacks.calls``."""
COMMON_FAMILIES = (1, 2, 10, 16, 17, 38, 40)
"""Unix, IPv4, IPv6, netlink, packet, kernel cryptography, virtual machines."""
SELDOM_TRIED = {
    attempt.name
    for attempt in ATTEMPTS
    if attempt.call[0] == "socket" and attempt.call[1] not in COMMON_FAMILIES
}
KEY = 0x6D6C_7074


@dataclass(frozen=True)
class Outside:
    """What the attempts aim at."""

    target: int
    """A process of the service's own user."""
    port: str
    abstract: str

    def fill(self, attempt: Attempt) -> list[object]:
        """The attempt's call with its place-holders filled in."""
        values: Mapping[str, object] = {
            "TARGET": self.target,
            "PORT": self.port,
            "ABSTRACT": self.abstract,
            "SEGMENT": KEY,
        }
        return [values.get(part, part) if isinstance(part, str) else part for part in attempt.call]


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    """A process, two listeners and a shared segment on the host."""
    library = ctypes.CDLL(None, use_errno=True)
    segment = library.shmget(KEY, 4096, 0o1666)  # IPC_CREAT, and for everybody
    assert segment >= 0, os.strerror(ctypes.get_errno())
    with ExitStack() as stack:
        stack.callback(library.shmctl, segment, 0, None)  # IPC_RMID
        process = stack.enter_context(subprocess.Popen(["sleep", "600"]))
        stack.callback(process.kill)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = struct.pack("=H", 2) + struct.pack("!H", tcp.getsockname()[1])
        port += socket.inet_aton("127.0.0.1") + bytes(8)
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = b"\0probe-%d" % os.getpid()
        unix.bind(name)
        unix.listen()
        yield Outside(process.pid, port.hex(), (struct.pack("=H", 1) + name).hex())


def outcome(probe: Probe, attempt: Attempt, outside: Outside) -> Outcome:
    """Make an attempt in a worker: its result, or how the worker ended."""
    call = outside.fill(attempt)
    name, *values = call
    try:
        if name in WRAPPED:
            names = {
                "connect": ("family", "address"),
                "read_process": ("pid", "address"),
                "set_limit": ("number", "values"),
            }[str(name)]
            result = probe.ask(f"calls.{name}", None, **dict(zip(names, values, strict=True)))
        else:
            result = probe.ask("calls.make_and_close", parts=call)
    except ml.SecurityError:
        lost = probe.model.lost
        assert lost is not None
        assert lost.reason == "policy-violation"
        return KILLED
    assert isinstance(result, int)
    return result


def outcomes(
    service: ProbeService, attempts: list[Attempt], outside: Outside
) -> dict[str, Outcome]:
    """Make attempts one after another, in a new worker when one was killed."""
    found: dict[str, Outcome] = {}
    with ExitStack() as stack:
        probe = stack.enter_context(service.probe())
        for attempt in attempts:
            found[attempt.name] = outcome(probe, attempt, outside)
            if found[attempt.name] == KILLED:
                probe = stack.enter_context(service.probe())
    return found


def need(probe: Probe, *layers: Layer) -> None:
    """Skip where this host does not give a layer."""
    for layer in layers:
        if layer not in probe.model.isolation.layers:
            pytest.skip(f"not claimed: this host gives no {layer}")


@cache
def landlock_abi() -> int:
    """Return the version that the kernel has; 0 where it has none."""
    try:
        return landlock.abi_version()
    except OSError:
        return 0


def claimed(attempt: Attempt, layer: Layer) -> Outcome | None:
    """What a layer alone says it does to an attempt; None for what it does not claim."""
    if layer is Layer.SECCOMP:
        return attempt.seccomp
    if attempt.root_only and os.geteuid() != 0:
        return None
    if layer is Layer.LANDLOCK and landlock_abi() < LANDLOCK_ABI.get(attempt.name, 1):
        return None
    return attempt.others.get(layer)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SELDOM_TRIED else name
        for name in NAMED
    ],
)
def test_with_every_layer_a_worker_cannot(
    service: ProbeService, outside: Outside, name: str
) -> None:
    with service.probe() as probe:
        assert outcome(probe, NAMED[name], outside) == NAMED[name].seccomp


def test_without_any_layer_the_attempts_succeed(outside: Outside) -> None:
    attempts = [a for a in ATTEMPTS if a.bare and (os.geteuid() == 0 or not a.root_only)]
    assert len(attempts) > 20
    with ProbeService(only()) as service:
        found = outcomes(service, attempts, outside)
        failed = {name: value for name, value in found.items() if not _succeeded(value)}
    assert failed == {}


def _succeeded(value: Outcome) -> bool:
    return isinstance(value, int) and value >= 0


@pytest.mark.parametrize("layer", [layer for layer in ALONE if layer is not Layer.SECCOMP])
def test_alone_a_layer_does_what_it_claims(outside: Outside, layer: Layer) -> None:
    expected = {
        attempt.name: result
        for attempt in ATTEMPTS
        if (result := claimed(attempt, layer)) is not None
    }
    if not expected:
        pytest.skip(f"{layer} claims none of the attempts here")
    with ProbeService(only(layer, *ALONE[layer])) as service:
        with service.probe() as probe:
            need(probe, layer)
        attempts = [attempt for attempt in ATTEMPTS if attempt.name in expected]
        assert outcomes(service, attempts, outside) == expected


@pytest.mark.slow
def test_alone_the_filter_does_what_it_claims(outside: Outside) -> None:
    with ProbeService(only(Layer.SECCOMP, *ALONE[Layer.SECCOMP])) as service:
        found = outcomes(service, list(ATTEMPTS), outside)
    assert found == {attempt.name: attempt.seccomp for attempt in ATTEMPTS}


def test_behind_the_filter_stands_a_second_wall(outside: Outside) -> None:
    """Without seccomp, what any other layer claims fails all the same."""
    attempts = [
        attempt
        for attempt in ATTEMPTS
        if any(claimed(attempt, layer) is not None for layer in ALONE if layer != Layer.SECCOMP)
    ]
    with ProbeService(all_but(Layer.SECCOMP)) as service:
        with service.probe() as probe:
            need(probe, Layer.EMPTY_ROOT, Layer.PID_NAMESPACE, Layer.NETWORK_NAMESPACE)
        found = outcomes(service, attempts, outside)
    assert {name: value for name, value in found.items() if _succeeded(value)} == {}
