"""Anybody to the TCP port: what is no TLS, a handshake that is damaged or stops, and bytes within.

Each connection is closed by the service: at once, when its client sends no more, or when its time
for the handshake has passed. A client with a certificate goes on calling meanwhile.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic

import numpy as np

import model_loader as ml
from loader_service.writer import small
from tests.fuzz.campaign import Table, numbered
from tests.fuzz.wire.damage import damaged, number
from tests.fuzz.wire.healthy import Healthy
from tests.fuzz.wire.silent import Silent
from tests.network.conftest import Site, address_of, make_site
from tests.support.daemon import Daemon
from tests.support.http2 import PREFACE, Flag, Frame, frame, headers

HANG_SECONDS = 30.0
HANDSHAKE_SECONDS = 2.0
SILENT_AT_A_TIME = 30
LOOK_EVERY = 100
GROWTH_BYTES = 64 << 20
LOG_BYTES = 4 << 20
"""What strangers may make the service write: it has a limit for each minute."""
NO_TLS = (
    b"",
    b"\0",
    PREFACE,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x80\x2e\1\3\1\0\x15\0\0\0\x10",  # the hello of SSL 2
    b"\x16\3\1\xff\xff\1",
    b"\x15\3\3\0\2\2\x28",
    b"\x17\3\3\0\0",
    b"\x16\3\1\0\0" * 500,
)
WITHIN = "other bytes within TLS"
CERTIFICATES = (*["alice"] * 8, "nobody", "expired", "wrong", "for-servers", None)
"""Of which the first is a client's of the service."""


class Hostile:
    """A client's end of TLS, whose records go through the hands of the fuzzer."""

    def __init__(self, site: Site, random: Random) -> None:
        context = ssl.create_default_context(cafile=str(site.authority.certificate))
        context.check_hostname = False
        context.set_alpn_protocols(random.choice((*[["h2"]] * 8, ["http/1.1"], ["x" * 255])))
        name = random.choice(CERTIFICATES)
        if name is not None:
            context.load_cert_chain(site.folder / f"{name}.pem", site.folder / f"{name}.key")
        if random.random() < 0.3:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname="localhost")

    def step(self, came: bytes) -> bytes | None:
        """Take in what came; returns what goes, None once the handshake is done and said."""
        self._coming.write(came)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._going.read()
        return self._going.read() or None

    def write(self, data: bytes) -> bytes:
        """Return records that hold these bytes."""
        self._tls.write(data)
        return self._going.read()


def knocking(seed: int, count: int, seconds: float | None = None) -> Table:
    """Make so many connections."""
    table = Table("TCP port, before and within TLS")
    if shutil.which("openssl") is None:
        table.facts["this host has no openssl command"] = 1
        return table
    began = monotonic()
    silent = Silent(table, HANDSHAKE_SECONDS, SILENT_AT_A_TIME)
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), "IP:127.0.0.1,DNS:localhost")
        file = site.configuration("127.0.0.1:0", client_ca=True)
        daemon = Daemon(config=file, handshake_seconds=HANDSHAKE_SECONDS)
        with Healthy(table, service=daemon) as healthy:
            address = address_of(daemon)
            with ml.connect(address, **site.client("alice")) as connection:
                model = ml.MLModelLoader(ml.create_context(connection=connection)).load(small.add())
                table.facts["answers over TLS"] = table.facts["honest clients served"] = 0
                _greet(table, address, site, "at the beginning")
                healthy.begin()
                for item in numbered(count, seconds):
                    random = Random(f"knocking {seed} {item}")
                    try:
                        outcome, kept = _one(address, site, random)
                        if kept is not None:
                            silent.keep(item, kept)
                    except Exception as error:
                        outcome = "a fault"
                        table.find(f"{item}: {type(error).__name__}: {error}")
                    table.count(outcome)
                    silent.look()
                    if item % LOOK_EVERY == 0:
                        healthy.look(f"connection {item}")
                        _call(table, model, f"connection {item}")
                        _greet(table, address, site, f"connection {item}")
                silent.see_all_closed()
                _call(table, model, "at the end")
                healthy.settle([model.isolation.worker_pid])
                healthy.weigh(GROWTH_BYTES)
                table.facts["KiB of log"] = (written := len(daemon.log())) >> 10
                if written > LOG_BYTES:
                    table.find(f"the log has {written} characters")
    table.seconds = monotonic() - began
    return table


def _call(table: Table, model: ml.MLModel, when: str) -> None:
    """Go on calling in a connection that is older than all of this."""
    try:
        answer = model.compute(np.ones(1, np.float32), timeout=HANG_SECONDS)
        if answer.tolist() != [2]:
            table.find(f"{when}: over TLS came {answer}")
    except ml.ModelLoaderError as error:
        table.find(f"{when}: over TLS came {error!r}")
    table.facts["answers over TLS"] += 1


def _greet(table: Table, address: str, site: Site, when: str) -> None:
    """Be an honest client that comes anew."""
    try:
        with ml.connect(address, **site.client("bob")) as connection:
            if connection.models():
                table.find(f"{when}: somebody sees another's models")
    except ml.ModelLoaderError as error:
        table.find(f"{when}: an honest client gets {error!r}")
    table.facts["honest clients served"] += 1


def _one(address: str, site: Site, random: Random) -> tuple[str, socket.socket | None]:
    """Make one connection; returns how it ended, and itself if it fell silent."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    connection = socket.create_connection((host, int(port)), HANG_SECONDS)
    keep = False
    try:
        if random.random() < 0.15:
            data = random.choice((*NO_TLS, random.randbytes(300), random.randbytes(20_000)))
            done = "no TLS"
            with suppress(ConnectionError):
                connection.sendall(damaged(data, random))
        else:
            done = _handshake(connection, Hostile(site, random), random)
        # Within TLS HTTP/2 may have been greeted: such a connection may be idle for long.
        if random.random() < 0.03 and done != WITHIN:
            keep = True
            return f"{done}: fell silent", connection
        if random.random() < 0.05:
            return f"{done}: left at once", None
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while connection.recv(1 << 16):
                pass
        return f"{done}: closed", None
    finally:
        if not keep:
            connection.close()


def _handshake(connection: socket.socket, client: Hostile, random: Random) -> str:
    """Go through a handshake, with one thing done otherwise; returns how far that went."""
    fault = random.choice(("hello", "answer", "within", "within", "record"))
    came, flight = b"", 0
    try:
        while (going := client.step(came)) is not None:
            if (fault, flight) in (("hello", 0), ("answer", 1)):
                connection.sendall(_otherwise(going, random))
                return f"a damaged {fault}"
            _send(connection, going, random)
            flight += 1
            came = connection.recv(1 << 16)
            if not came:
                return "a handshake that was refused"
        if fault == "record":
            connection.sendall(_otherwise(client.write(PREFACE), random))
            return "a damaged record"
        for data in _within(random):
            _send(connection, client.write(data), random)
    except (ssl.SSLError, ConnectionError):
        return "a handshake that was refused"
    return WITHIN


def _send(connection: socket.socket, data: bytes, random: Random) -> None:
    if random.random() < 0.05 and len(data) < 3000:
        for place in range(0, len(data), 7):
            connection.sendall(data[place : place + 7])
    else:
        connection.sendall(data)


def _otherwise(data: bytes, random: Random) -> bytes:
    """Damage records: cut off, a length or type that lies, other bytes, twice."""
    match random.randrange(6):
        case 0:
            return data[: random.randrange(len(data) + 1)]
        case 1:
            return data[:3] + number(random, 1 << 16).to_bytes(2, "big") + data[5:]
        case 2:
            return bytes((random.randrange(256),)) + data[1:]
        case 3:
            return data + data
        case 4:
            return data[:5] + damaged(data[5:], random)
    return damaged(data, random)


def _within(random: Random) -> list[bytes]:
    """What a client of gRPC would not say once TLS stands."""
    settings, call = frame(Frame.SETTINGS), Flag.END_STREAM | Flag.END_HEADERS
    unknown = headers("/model_loader.v1.X/\udcfe")
    return random.choice(
        (
            [random.randbytes(random.choice((1, 100, 30_000)))],
            [PREFACE[: random.randrange(len(PREFACE))]],
            [PREFACE, damaged(settings, random)],
            [PREFACE, settings, random.randbytes(100)],
            [b"GET /metrics HTTP/1.1\r\n\r\n"],
            [damaged(PREFACE + settings, random)] * random.choice((1, 200)),
            [PREFACE, settings, damaged(frame(Frame.HEADERS, call, 1, unknown), random)],
            [
                *(PREFACE, settings),
                frame(Frame.HEADERS, call, 1, headers("/\udcff" + chr(random.randrange(128)))),
            ],
        )
    )
