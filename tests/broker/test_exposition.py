"""The metrics as they are served: over HTTP, to whom, and with which series."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loader_service.broker import exposition
from loader_service.broker.event_stream import Told
from loader_service.broker.events import ModelClosed, WorkerEnded
from loader_service.broker.groups import Owner
from loader_service.broker.living import Share
from loader_service.broker.living_metrics import MOST_SHOWN, OTHERS
from loader_service.writer import small
from tests.support.all_metrics import OWNER, LivingOf, described, registry
from tests.support.daemon import Daemon
from tests.support.metric_rules import faults
from tests.support.raw_client import HANG_SECONDS, RawSession

GET = b"GET /metrics HTTP/1.1\r\nHost: service\r\n\r\n"


def ask(path: Path | int, request: bytes = GET) -> tuple[str, dict[str, str], str]:
    """Send a request to a socket or a port; gives status line, headers and body."""
    family = socket.AF_INET if isinstance(path, int) else socket.AF_UNIX
    with socket.socket(family) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.connect(("127.0.0.1", path) if isinstance(path, int) else str(path))
        connection.sendall(request)
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
    head, _, body = data.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def series(text: str) -> dict[str, float]:
    """Return each series by its name and labels, without the prefix."""
    return {
        sample.name.removeprefix("model_loader_") + str(_sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _sorted(labels: dict[str, str]) -> dict[str, str] | str:
    return dict(sorted(labels.items())) or ""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A free port; it is bound all the time and never listens, so that nobody else gets it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@pytest.fixture(scope="module")
def daemon(port: int) -> Iterator[Daemon]:
    """A daemon with metrics at both places."""
    with Daemon(metrics=True, metrics_port=port) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def text(daemon: Daemon, port: int) -> tuple[str, str]:
    """What is served while a model lives that has computed once: on the socket, on the port."""
    with RawSession(daemon.directory, "an origin") as session:
        model_id = session.load(small.add(), relayed=True).model_id
        session.compute(model_id, np.ones(1, np.float32))
        return ask(daemon.directory / "metrics.sock")[2], ask(port)[2]


def test_the_socket_is_the_groups(daemon: Daemon) -> None:
    status = (daemon.directory / "metrics.sock").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())


def test_what_has_happened_is_counted(text: tuple[str, str]) -> None:
    found = series(text[0])
    label = {"origin": "an origin", "user": str(os.geteuid())}
    assert found[f"models{label}"] == 1
    assert found[f"worker_memory_bytes{label}"] > 0
    assert found["loads_total{'outcome': 'ready', 'task': 'load'}"] == 1
    assert found["model_bytes_total"] == len(small.add())
    assert found["relayed_calls_total{'outcome': 'ready'}"] == 1
    phases = [found[f"relayed_call_seconds_count{{'phase': '{name}'}}"] for name in PHASES]
    assert phases == [1, 1, 1, 1]
    assert found["relayed_tensor_bytes_total{'direction': 'in'}"] == 4
    assert found[f"worker_cpu_seconds_total{{'user': '{os.geteuid()}'}}"] >= 0
    assert (found["ready"], found["draining"]) == (1, 0)
    assert found["workers"] >= 1


PHASES = ("send", "queue", "compute", "reply")


def test_the_port_names_no_origin(text: tuple[str, str]) -> None:
    on_socket, on_port = text
    assert "an origin" in on_socket
    assert "an origin" not in on_port
    assert "origin=" not in on_port
    assert series(on_port)[f"models{{'user': '{os.geteuid()}'}}"] == 1


@pytest.mark.parametrize("place", [0, 1])
def test_prometheus_own_linter_would_find_nothing(text: tuple[str, str], place: int) -> None:
    assert faults(text[place]) == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "200 OK"),
        (b"GET /metrics?name[]=x HTTP/1.0\r\n\r\n", "200 OK"),
        (b"GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"hello\r\n\r\n", "400 Bad Request"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", "400 Bad Request"),
    ],
)
def test_a_request_gets_its_status(daemon: Daemon, request_: bytes, status: str) -> None:
    said, headers, body = ask(daemon.directory / "metrics.sock", request_)
    assert said == f"HTTP/1.1 {status}"
    assert int(headers["Content-Length"]) == len(body.encode())


def test_head_has_no_body(daemon: Daemon) -> None:
    request = b"HEAD /metrics HTTP/1.1\r\n\r\n"
    said, headers, body = ask(daemon.directory / "metrics.sock", request)
    assert (said, body) == ("HTTP/1.1 200 OK", "")
    assert int(headers["Content-Length"]) > 1000
    assert headers["Content-Type"].startswith("text/plain; version=")


LONG = 32 << 20
"""Bytes of an answer that no socket's buffers hold."""


@pytest.mark.parametrize("seconds", [0.2, 600.0])
def test_who_does_not_read_the_answer_is_counted_until_cut_off(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """However long the answer is: connections that nobody reads must not heap up."""
    monkeypatch.setattr(exposition, "generate_latest", lambda registry: bytes(LONG))
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", seconds)
    monkeypatch.setattr(exposition, "AT_A_TIME", 2)
    path = str(short_folder / "metrics.sock")

    async def test() -> None:
        served = exposition.Exposition()
        await served.on_socket(path, os.getegid(), CollectorRegistry())
        slow = [await asyncio.open_unix_connection(path) for _ in range(2)]
        for reader, writer in slow:
            writer.write(GET)
            said = b""
            with suppress(ConnectionError):
                said = await reader.readline()
            if seconds == 600.0:  # else the time may be over before the request has come
                assert said == b"HTTP/1.1 200 OK\r\n"
        if seconds == 600.0:
            one_more, writer = await asyncio.open_unix_connection(path)
            assert await one_more.read() == b""
            writer.close()
            await served.stop()
        while served._clients:
            await asyncio.sleep(0.01)
        for reader, writer in slow:
            with suppress(ConnectionError):
                assert len(await reader.read()) < LONG  # what the kernel held, and not the rest
            writer.close()
        await served.stop()

    asyncio.run(asyncio.wait_for(test(), HANG_SECONDS))


def test_more_users_than_are_shown_are_one_series() -> None:
    shares = {
        Owner(uid, "a"): Share(sessions=1, models=1, memory_bytes=uid)
        for uid in range(1, MOST_SHOWN + 4)
    }
    for origins in (True, False):
        found = series(generate_latest(registry(shares, origins=origins)).decode())
        models = {name: value for name, value in found.items() if name.startswith("models{")}
        assert len(models) == MOST_SHOWN + 1
        assert sum(models.values()) == MOST_SHOWN + 3
        rest = {"origin": OTHERS, "user": OTHERS} if origins else {"user": OTHERS}
        assert models[f"models{rest}"] == 3
        assert found[f"worker_memory_bytes{rest}"] == 1 + 2 + 3


def test_an_origin_is_a_label_whatever_it_says() -> None:
    """It is its program's word: it can make up no series, and end no line."""
    origin = 'x",user="0"} 1\nmodel_loader_ready 7\n# TYPE y\\'
    text = generate_latest(registry({Owner(1, origin): Share(models=1)}, origins=True)).decode()
    assert faults(text) == []
    (sample,) = (
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "model_loader_models"
    )
    assert sample.labels == {"user": "1", "origin": origin}
    assert series(text)["ready"] == 1


def told(event: WorkerEnded | ModelClosed) -> Told:
    """Wrap an event as the stream does."""
    return Told(1, 0.0, "", event)


def test_counters_of_users_only_grow() -> None:
    living = LivingOf({OWNER: Share(cpu_seconds=2.0, reported_calls=7)})
    assert (living.cpu_seconds(), living.reported_calls()) == ({1000: 2.0}, {1000: 7})
    living.found = {}
    # The kernel's count of the dead one is a little less than what was seen of the living one.
    living.count(told(WorkerEnded(owner=OWNER, cause="closed", worker_pid=1, cpu_seconds=1.996)))
    assert living.cpu_seconds() == {1000: 2.0}
    closed = ModelClosed(
        owner=OWNER, model_id="m", worker_pid=1, reported_calls=8, lived_seconds=1.0
    )
    living.count(told(closed))
    assert living.reported_calls() == {1000: 8}
    living.found = {OWNER: Share(cpu_seconds=1.0, reported_calls=2)}
    assert (living.cpu_seconds(), living.reported_calls()) == ({1000: 2.996}, {1000: 10})


def test_every_metric_is_described_once() -> None:
    names = [name for name, *_ in described()]
    assert len(names) == len(set(names)) > 30
    assert all(kind in ("counter", "gauge", "histogram") for _, kind, _, _ in described())
