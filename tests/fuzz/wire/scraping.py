"""Anybody to the metrics' socket: requests that are none, too long, cut off, or never come.

Each gets the status that it deserves, or none, and an honest reader gets the metrics meanwhile.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import damaged
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.silent import Silent, connect, see_last_sent_away
from tests.support.daemon import Daemon

HANG_SECONDS = 20.0
SEATS = 16
SILENT_AT_A_TIME = 6
"""Of those that the service has a seat for: an honest reader is to have one."""
SILENT_SECONDS = 5.0
"""How long the service waits for a request, at least."""
LOOK_EVERY = 100
LONGEST = 16 << 10
"""Bytes of a request's head."""
GROWTH_BYTES = 64 << 20
"""Of the broker, beyond what it had."""
END = b"\r\n\r\n"
GOOD = (
    b"GET /metrics HTTP/1.1\r\nHost: service\r\nAccept: */*" + END,
    b"GET / HTTP/1.0" + END,
    b"HEAD /metrics?name[]=x HTTP/1.1" + END,
    b"POST /metrics HTTP/1.1\r\nContent-Length: 3" + END + b"abc",
    b"GET /other HTTP/1.1" + END,
)
STRANGE = (
    END,
    b"GET" + END,
    b"GET  /metrics HTTP/1.1" + END,
    b"GET /metrics HTTP/2.0" + END,
    b"GET /metrics\tHTTP/1.1" + END,
    b"get /metrics HTTP/1.1" + END,
    b"GET /metrics/../../etc/passwd HTTP/1.1" + END,
    b"GET http://elsewhere/metrics HTTP/1.1" + END,
    b"GET /\xff\xfe\0\x1b[2J HTTP/1.1" + END,
    b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked" + END + b"ffffffff\r\n",
    b"GET /metrics HTTP/1.1\nHost: x\n\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def due(data: bytes) -> int:
    """Return the status that is due for what was sent; 0 for no answer."""
    place = data.find(END)
    if place < 0 or place > LONGEST:
        return 400 if len(data) > LONGEST + 3 else 0
    line = data[:place].partition(b"\r\n")[0]
    if line.count(b" ") != 2 or not line.rpartition(b" ")[2].startswith(b"HTTP/1."):
        return 400
    method, target, _ = line.split(b" ")
    if target.partition(b"?")[0] not in (b"/", b"/metrics"):
        return 404
    return 200 if method in (b"GET", b"HEAD") else 405


def scraping(seed: int, count: int, seconds: float | None = None) -> Table:
    """Make so many connections."""
    table = Table("Metrics socket, HTTP")
    began = monotonic()
    silent = Silent(table, SILENT_SECONDS, SILENT_AT_A_TIME)
    with Healthy(table, service=Daemon(metrics=True)) as healthy:
        path = healthy.service.directory / "metrics.sock"
        table.facts["honest readers served"] = 0
        _read(table, path, "at the beginning")
        healthy.begin()
        for item in numbered(count, seconds):
            random = Random(f"scraping {seed} {item}")
            try:
                if random.random() < 0.01 and len(silent) < SILENT_AT_A_TIME:
                    connection = connect(path, HANG_SECONDS)
                    silent.keep(item, connection)
                    connection.sendall(_request(random)[:-1][:LONGEST].replace(END, b""))
                    table.count("fell silent")
                elif random.random() < 0.005:
                    see_last_sent_away(path, SEATS + 24, HANG_SECONDS)
                    table.count("a crowd: the last one was sent away")
                else:
                    table.count(_one(path, random))
            except Exception as error:
                table.count("a fault")
                table.find(f"{item}: {type(error).__name__}: {error}")
            silent.look()
            if item % LOOK_EVERY == 0:
                healthy.look(f"request {item}")
                _read(table, path, f"request {item}")
        silent.see_all_closed()
        _read(table, path, "at the end")
        healthy.settle([])
        healthy.weigh(GROWTH_BYTES)
    table.seconds = monotonic() - began
    return table


def _request(random: Random) -> bytes:
    request = random.choice(GOOD if random.random() < 0.7 else STRANGE)
    chance = random.random()
    if chance < 0.4:
        request = damaged(request, random)
    elif chance < 0.5:  # about as long as a head may be
        more = LONGEST + random.choice((-40, -4, -1, 0, 1, 4, 5000, 300_000)) - len(request)
        request = request.replace(b"HTTP", b"x" * more + b" HTTP", 1)
    elif chance < 0.55:
        request = request * random.choice((2, 50))
    return request


def _one(path: Path, random: Random) -> str:
    """Make one request; returns how it was answered. Raises AssertionError for what is not due."""
    request = _request(random)
    with connect(path, HANG_SECONDS) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
            if random.random() < 0.1 and len(request) < 500:
                for place in range(0, len(request), 3):
                    connection.sendall(request[place : place + 3])
            else:
                connection.sendall(request)
            if random.random() < 0.1:
                return "left at once"
            connection.shutdown(socket.SHUT_WR)
        status, body = _answer(connection)
    assert status == due(request), f"{status} for {request[:200]!r}"
    if status == 200:
        assert bool(body) == (not request.startswith(b"HEAD")), request
    return f"{status}" if status else "no answer"


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read to the end; returns status and body. Raises AssertionError for what is no answer."""
    data = b""
    with suppress(ConnectionError):  # after the answer, where not all of the request was read
        while piece := connection.recv(1 << 16):
            data += piece
    if not data:
        return 0, b""
    head, found, body = data.partition(END)
    first, *lines = head.decode("ascii").split("\r\n")
    protocol, code, _ = first.split(" ", 2)
    fields = dict(line.split(": ", 1) for line in lines)
    assert found, head
    assert protocol == "HTTP/1.1", first
    assert fields["Connection"] == "close", fields
    assert len(body) in (int(fields["Content-Length"]), 0), fields
    return int(code), body


def _read(table: Table, path: Path, when: str) -> None:
    """Be an honest reader, who comes again if there is no seat."""
    try:
        ends = monotonic() + HANG_SECONDS
        status, body = 0, b""
        while not status and monotonic() < ends:
            with connect(path, HANG_SECONDS) as connection, suppress(BrokenPipeError):
                connection.sendall(GOOD[0])
                status, body = _answer(connection)
        assert status == 200, status
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        assert found["model_loader_ready"] == 1
        assert found["model_loader_loads_total"] >= 0
    except Exception as error:
        table.find(f"{when}: an honest reader gets {type(error).__name__}: {error}")
    table.facts["honest readers served"] += 1
