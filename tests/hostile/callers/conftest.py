"""A daemon with small limits, and somebody who must be able to work whatever others do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from loader_service.writer import small
from tests.hostile.callers.abuser import UID, Abuser
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS, RawSession

ONE = np.array([1], np.float32)
FLAGS = {
    "allow_user": UID,
    "attach_connections": 20,
    "grpc_connections": 24,
    "calls_at_a_time": 40,
    "models_per_origin": 3,
    "processes": 9,
    "handshake_seconds": 1,
    "message_seconds": 2,
    "load_seconds": 2,
    "claim_seconds": 2,
    "tensor_bytes": 16 << 20,
    "output_bytes": 16 << 20,
    "bytes_in_flight": 8 << 20,
    "model_bytes": 1 << 20,
    "broker_memory_bytes": 160 << 20,
    "log_bytes_per_minute": 20_000,
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """The daemon of all these tests."""
    with Daemon(**FLAGS) as service:
        # What only the first use opens is open now.
        with Abuser(service.directory, "visit") as first:
            first.report()
        honest(service)
        yield service


def honest(service: Daemon) -> None:
    """Load a model and compute with it, on both roads, as who runs the daemon."""
    with RawSession(service.directory, "honest") as session:
        model = session.load(small.add(), relayed=True)
        (output,) = session.compute(model.model_id, ONE).outputs
        assert np.frombuffer(output.data, np.float32) == 2
        session.channel(session.load(small.add()).model_id).close()


@pytest.fixture
def abused(daemon: Daemon) -> Iterator[Callable[[str], Abuser]]:
    """Starts abuses of the daemon; after the test nothing must be left of them."""
    daemon.wait_for_workers([])
    before = daemon.descriptors()
    yield lambda abuse: Abuser(daemon.directory, abuse)
    honest(daemon)
    daemon.wait_for_workers([])
    deadline = time.monotonic() + HANG_SECONDS
    while (now := daemon.descriptors()) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now <= before, f"{now - before} descriptors more than before"
    assert "Traceback" not in daemon.log(), daemon.log()
    assert len(daemon.log()) < 2 * FLAGS["log_bytes_per_minute"]
