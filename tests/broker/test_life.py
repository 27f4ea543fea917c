"""The end of a daemon: computations are finished, nothing new begins, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from loader_service.writer import costly, small
from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Entry, Kind, pack_table
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import ONE
from tests.support.notified import Notified
from tests.support.processes import children, describe, living, wait_until_empty
from tests.support.raw_client import (
    HANG_SECONDS,
    RawSession,
    detail_of,
    exchange_over,
)

STEPS = np.array([4000], np.int32)
"""Of `costly.work`: computed in a second or more."""


def ended_well(daemon: Notified, family: list[int]) -> None:
    """The daemon ends with status 0, and all its processes with it."""
    assert daemon.process.wait(HANG_SECONDS) == 0
    left = wait_until_empty(lambda: living(family), HANG_SECONDS)
    assert not left, describe(left)
    assert not daemon.directory.exists()


def test_an_idle_one_ends_its_models_and_itself(short_folder: Path) -> None:
    with Notified(short_folder, "--drain-seconds=600") as daemon:
        daemon.wait_for("READY=1")
        with RawSession(daemon.directory) as session:
            channel = session.channel(session.load(small.add()).model_id)
            exchange_over(channel, [ONE])
            family = children(daemon.process.pid)
            daemon.process.terminate()
            daemon.wait_for("STOPPING=1", "STATUS=ending")
            ended_well(daemon, family)
            assert channel.recv(1) == b""
            channel.close()


def begin_to_compute(channel: socket.socket, worker: int) -> threading.Thread:
    """Have a worker compute, and stop it in the middle; the thread ends with the whole answer."""
    for _ in range(10):
        used = psutil.Process(worker).cpu_times().user
        computing = threading.Thread(target=compute_all, args=(channel,))
        computing.start()
        while computing.is_alive() and psutil.Process(worker).cpu_times().user < used + 0.05:
            time.sleep(0.001)
        os.kill(worker, signal.SIGSTOP)
        computing.join(0.1)
        if computing.is_alive():
            return computing
        os.kill(worker, signal.SIGCONT)
    raise AssertionError("each computation was over before it could be stopped")


def compute_all(channel: socket.socket) -> None:
    """Compute `STEPS`; what else comes ends this thread with a complaint, and fails the test."""
    (done,) = exchange_over(channel, [STEPS]).tensors
    assert np.frombuffer(done, np.int32) == STEPS


def request_steps(channel: socket.socket) -> None:
    """Send a request, and wait for no answer."""
    entries = [Entry(DataType.INT32, STEPS.shape, STEPS.nbytes)]
    request = Exchange(
        Kind.COMPUTE, 1, table=pack_table(entries), payload=[STEPS.tobytes()], most=100
    )
    while request.unsent:
        request.sent(channel.sendmsg(request.outgoing))


FLAGS = ("--drain-seconds=600", "--compute-seconds=600")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("isolation", ["model", "origin"])
def test_what_is_computed_is_finished_and_nothing_is_loaded(
    short_folder: Path, isolation: str
) -> None:
    with Notified(short_folder, *FLAGS, f"--isolation={isolation}") as daemon:
        daemon.wait_for("READY=1")
        with (
            RawSession(daemon.directory) as session,
            RawSession(daemon.directory, "other") as other,
        ):
            reply = session.load(costly.work())
            channel = session.channel(reply.model_id)
            ended = other.load(small.add()).model_id
            idle = other.channel(ended)
            family = children(daemon.process.pid)
            computing = begin_to_compute(channel, reply.isolation.worker_pid)
            daemon.process.terminate()
            daemon.wait_for("STOPPING=1", "STATUS=draining")
            assert idle.recv(1) == b""  # what computes nothing is ended
            state = other.call("GetModel", pb.GetModelRequest(model_id=ended, wait_seconds=10))
            assert (state.lost, state.detail.cause) == (True, "unavailable")
            with pytest.raises(grpc.RpcError) as refusal:
                other.load(small.add())
            assert detail_of(refusal.value).cause == "unavailable"
            assert "draining" in detail_of(refusal.value).message
            os.kill(reply.isolation.worker_pid, signal.SIGCONT)
            computing.join(HANG_SECONDS)
            assert not computing.is_alive()
            assert channel.recv(1) == b""
            ended_well(daemon, family)
            channel.close()
            idle.close()


@pytest.mark.parametrize("bound", ["its time", "a second signal"])
def test_a_drain_is_bounded(short_folder: Path, bound: str) -> None:
    seconds = 0.3 if bound == "its time" else 600
    flags = (f"--drain-seconds={seconds}", "--compute-seconds=600")
    with Notified(short_folder, *flags) as daemon:
        daemon.wait_for("READY=1")
        with RawSession(daemon.directory) as session:
            channel = session.channel(session.load(costly.endless()).model_id)
            request_steps(channel)
            family = children(daemon.process.pid)
            daemon.process.terminate()
            daemon.wait_for("STOPPING=1", "STATUS=draining")
            if bound == "a second signal":
                daemon.process.terminate()
            ended_well(daemon, family)
            channel.close()


def test_a_daemon_that_is_killed_leaves_no_process(short_folder: Path) -> None:
    with Notified(short_folder, "--compute-seconds=600") as daemon:
        daemon.wait_for("READY=1")
        with RawSession(daemon.directory) as session:
            session.load(small.add())
            session.load(costly.work())
            family = children(daemon.process.pid)
            assert len(family) == 3  # and the zygote
            daemon.process.kill()
            left = wait_until_empty(lambda: living(family), HANG_SECONDS)
            assert not left, describe(left)
