"""The blocking channel: how many system calls a call costs, and deadlines kept by the kernel."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader._blocking_channel import BlockingChannel
from model_loader._effects import ChannelEnded, DeadlinePassed
from model_loader_wire.data_types import DataType
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import Kind, pack_header
from tests.client import workers
from tests.client.bare_model import bare_model
from tests.client.fake_service import echoing, tensor


class CountingSocket(socket.socket):
    """Counts the system calls that are made on it."""

    counts: Counter[str]

    def _count(self, name: str, *arguments: Any) -> Any:
        result = getattr(socket.socket, name)(self, *arguments)
        self.counts[name] += 1  # not the looks in vain, whose number nobody knows
        return result

    def sendmsg(self, *arguments: Any) -> Any:
        """Count and send."""
        return self._count("sendmsg", *arguments)

    def recv_into(self, *arguments: Any) -> Any:
        """Count and receive."""
        return self._count("recv_into", *arguments)

    def recvmsg_into(self, *arguments: Any) -> Any:
        """Count and receive."""
        return self._count("recvmsg_into", *arguments)

    def setsockopt(self, *arguments: Any) -> Any:
        """Count and set."""
        return self._count("setsockopt", *arguments)

    def recv(self, *arguments: Any) -> Any:
        """Count and receive."""
        return self._count("recv", *arguments)


def counted_model(*tensors: Any) -> tuple[ml.MLModel, Counter[str]]:
    """Give an echoing model and the counts of its channel's system calls."""
    ours, theirs = socket.socketpair()
    counted = CountingSocket(fileno=ours.detach())
    counted.counts = Counter()
    threading.Thread(target=workers.serve, args=(theirs, workers.echo), daemon=True).start()
    return bare_model(counted, echoing(*tensors)), counted.counts


def test_small_call_is_two_system_calls() -> None:
    model, counts = counted_model(tensor("x", DataType.FLOAT32, (1000,)))
    x = np.ones(1000, np.float32)
    model.compute(x)
    counts.clear()
    for _ in range(50):
        model.compute(x)
    assert counts == {"sendmsg": 50, "recvmsg_into": 50}
    model.compute(x, timeout=3)
    model.compute(x, timeout=3)
    assert counts == {"sendmsg": 52, "recvmsg_into": 52, "setsockopt": 2}


def test_outputs_of_one_call_are_read_together() -> None:
    model, counts = counted_model(
        *(tensor(f"t{number}", DataType.FLOAT32, (6000,)) for number in range(4))
    )
    inputs = {f"t{number}": np.full(6000, number, np.float32) for number in range(4)}
    for _ in range(10):
        answer = model.compute(inputs)
        for number in range(4):
            assert (answer[f"out:t{number}"] == number).all()
    assert counts["sendmsg"] == 10
    assert counts["recv_into"] <= 20
    assert counts["recvmsg_into"] <= 20


def test_deadline_is_kept_by_the_kernel() -> None:
    ours, _theirs = socket.socketpair()
    channel = BlockingChannel(ours)
    exchange = Exchange(Kind.RESET, 1)
    started = time.monotonic()
    with pytest.raises(DeadlinePassed):
        channel.run(exchange, started + 0.15)
    assert 0.1 < time.monotonic() - started < 20
    with pytest.raises(DeadlinePassed):
        channel.run(exchange, started)


class Interrupted(BaseException):
    """Raised between two system calls, as Ctrl-C does."""


class InterruptedSocket(socket.socket):
    """Is interrupted when its second option is set."""

    options = 0

    def setsockopt(self, *arguments: Any) -> Any:
        """Set, but the second time."""
        self.options += 1
        if self.options == 2:
            raise Interrupted
        return super().setsockopt(*arguments)


def test_interrupted_change_of_the_deadline_does_not_shorten_the_next() -> None:
    ours, theirs = socket.socketpair()
    channel = BlockingChannel(InterruptedSocket(fileno=ours.detach()))
    with pytest.raises(Interrupted):
        channel.run(Exchange(Kind.RESET, 1), time.monotonic() + 0.3)
    exchange = Exchange(Kind.RESET, 2)
    done = pack_header(Kind.DONE, 2)
    threading.Timer(0.6, theirs.sendall, (done,)).start()
    channel.run(exchange, None)
    assert exchange.done


def test_exchange_goes_on_after_its_deadline() -> None:
    ours, theirs = socket.socketpair()
    channel = BlockingChannel(ours)
    exchange = Exchange(Kind.RESET, 1)
    with pytest.raises(DeadlinePassed):
        channel.run(exchange, time.monotonic() + 0.05)
    threading.Thread(target=workers.serve, args=(theirs, workers.echo), daemon=True).start()
    channel.run(exchange, None)
    assert exchange.done
    channel.run(exchange, None)


def test_stop_wakes_the_waiting_thread() -> None:
    ours, _theirs = socket.socketpair()
    channel = BlockingChannel(ours)
    ended = []

    def wait() -> None:
        try:
            channel.run(Exchange(Kind.RESET, 1), None)
        except ChannelEnded:
            ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    channel.stop()
    thread.join(5)
    assert ended == [True]
    channel.close()
    channel.close()
    assert channel.has_ended()
    channel.stop()
