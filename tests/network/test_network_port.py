"""Over the network: the same objects, answers and errors, for those alone who show who they are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import model_loader as ml
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import costly, small
from model_loader_wire.v1 import admin_pb2 as admin_pb
from model_loader_wire.v1 import admin_pb2_grpc as admin_pb_grpc
from model_loader_wire.v1 import model_loader_pb2 as pb
from model_loader_wire.v1 import model_loader_pb2_grpc as pb_grpc
from tests.cli.conftest import run_command
from tests.integration.arrays import inputs_of
from tests.integration.test_values import TYPES
from tests.support.certificates import needs_openssl
from tests.support.daemon import Daemon
from tests.support.http2 import Frame, headers
from tests.support.raw_client import HANG_SECONDS, detail_of, load_parts
from tests.support.waiting import wait_until

from .conftest import OTHER_TOKEN, TOKEN, Site, address_of, digest

pytestmark = [pytest.mark.isolation, pytest.mark.slow, needs_openssl]

ONE = np.ones(1, np.float32)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What every connection of HTTP/2 begins with, and empty settings."""


@dataclass
class Client:
    """Somebody who is connected over the network."""

    connection: ml.Connection
    loader: ml.MLModelLoader

    def load(self, model: bytes) -> ml.MLModel:
        """Load a model."""
        return self.loader.load(model)


@contextmanager
def connected(address: str, **shown: Any) -> Iterator[Client]:
    """Give a client of the network."""
    with (
        ml.connect(address, origin="the same for all", **shown) as connection,
        ml.create_context(connection=connection) as context,
    ):
        yield Client(connection, ml.MLModelLoader(context))


@contextmanager
def raw(address: str, site: Site, name: str, token: str | None = None) -> Iterator[grpc.Channel]:
    """Give a channel without the client library."""
    content = {what: path.read_bytes() for what, path in site.client(name).items()}
    credentials = grpc.ssl_channel_credentials(
        content["ca"], content["key"], content["certificate"]
    )
    if token is not None:
        call = grpc.access_token_call_credentials(token)
        credentials = grpc.composite_channel_credentials(credentials, call)
    with grpc.secure_channel(address.removeprefix("tcp://"), credentials) as channel:
        yield channel


def test_every_type_shape_and_state_is_as_on_a_socket(address: str, site: Site) -> None:
    with connected(address, **site.client("alice")) as client:
        for name, tensor_type in TYPES.items():
            with client.load(small.copy(tensor_type)) as model:
                values = np.array([0, 1, 2, 3]).astype(name)
                answer = model.compute(values)
                assert (answer.dtype, answer.tolist()) == (np.dtype(name), values.tolist())
        with client.load(small.identity(TensorType.STRING)) as model:
            words = np.array([b"", "grün".encode(), b"\0zero", b"x" * 1000], object)
            assert model.compute(words).tolist() == words.tolist()
        with client.load(small.scalar()) as model:
            assert model.compute(np.array(41, np.float32)) == 42
        with client.load(small.dynamic_batch()) as model:
            values = np.arange(12, dtype=np.float32).reshape(3, 4)
            assert np.array_equal(model.compute(values), values * 2)
            with pytest.raises(ml.DataError, match="5"):
                model.compute(np.ones((2, 5), np.float32))


def test_big_tensors_and_many_calls(address: str, site: Site) -> None:
    elements = 1 << 23
    with connected(address, **site.client("alice")) as client:
        with client.load(small.copy(TensorType.FLOAT32, (elements,))) as model:
            values = np.arange(elements, dtype=np.float32)
            assert np.array_equal(model.compute(values), values)
        with client.load(small.add(1)) as model:
            answers = model.compute_many(np.full(1, value, np.float32) for value in range(200))
            assert [float(answer[0]) for answer in answers] == [value + 1 for value in range(200)]


def test_a_deadline_and_a_cancelled_call(address: str, site: Site) -> None:
    with connected(address, **site.client("alice")) as client:
        model = client.load(costly.endless())
        with pytest.raises(ml.TimeoutError):
            model.compute(inputs_of(model), timeout=0.5)
        assert model.lost is not None
        assert model.lost.reason == "timeout"

    async def cancelled() -> None:
        async with (
            await ml.aio.connect(address, **site.client("alice")) as connection,
            await ml.aio.create_context(connection=connection) as context,
        ):
            loader = ml.aio.MLModelLoader(context)
            other = await loader.load(small.add(1))
            model = await loader.load(costly.endless())
            busy = asyncio.ensure_future(model.compute(inputs_of(model)))  # type: ignore[arg-type]
            await asyncio.sleep(0.3)
            busy.cancel()
            with pytest.raises(asyncio.CancelledError):
                await busy
            assert (await other.compute(ONE)).tolist() == [2]
            await model.close()
            assert len(await connection.models()) == 1

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("expired", "refused the certificate"),
        ("wrong", "refused the certificate"),
        ("for-servers", "refused the certificate"),
        ("nobody", "the certificate names dns:nobody.example, and that is no client of this"),
        (None, "asks its clients for a certificate, and none was given"),
    ],
)
def test_without_the_right_certificate_nobody_comes_in(
    address: str, site: Site, daemon: Daemon, name: str | None, said: str
) -> None:
    shown = {"ca": site.authority.certificate} if name is None else site.client(name)
    with pytest.raises(ml.SecurityError, match=said):
        ml.connect(address, **shown)
    # Nor does a token help who has no certificate where one is asked for.
    if name != "nobody":
        with pytest.raises(ml.SecurityError, match=said):
            ml.connect(address, **(shown | {"token": TOKEN}))

    async def refused() -> None:
        with pytest.raises(ml.SecurityError, match=said):
            await ml.aio.connect(address, **shown)

    asyncio.run(refused())
    users = json.loads(run_command("status", "--json", "--address", daemon.directory).stdout)
    assert {user["user"] for user in users["users"]} <= {os.geteuid()}


def test_tokens_where_no_certificate_is_asked_for(site: Site) -> None:
    policies = "[[policy]]\ntokens = ['camera', 'another']"
    file = site.configuration("[::1]:0", client_ca=False, policies=policies)
    if not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    with closing(Daemon(config=file)) as daemon:
        address = address_of(daemon)
        ca = site.authority.certificate
        with pytest.raises(ml.SecurityError, match="does not prove to be ::1"):
            ml.connect(address, ca=ca, token=TOKEN)
    file = site.configuration("127.0.0.1:0", client_ca=False, policies=policies)
    with closing(Daemon(config=file)) as daemon:
        address = address_of(daemon)
        for token, said in (
            (None, "the call carries no token"),
            ("x" * 40, "the token is not one of this service's"),
            (digest(TOKEN), "the token is not one of this service's"),
        ):
            with pytest.raises(ml.SecurityError, match=said):
                ml.connect(address, ca=ca, token=token)
        with connected(address, ca=ca, token=TOKEN) as client, client.load(small.add(1)) as model:
            assert model.compute(ONE).tolist() == [2]
            # A token that is taken away is refused from the next call on; another one stays.
            site_tokens = site.folder / "tokens"
            before = site_tokens.read_text("ascii")
            with connected(address, ca=ca, token=OTHER_TOKEN) as other:
                keeps = other.load(small.add(2))
                file.write_text(file.read_text("utf-8").replace("'camera', ", ""), encoding="utf-8")
                site_tokens.write_text(f"another {digest(OTHER_TOKEN)}\n", "ascii")
                try:
                    os.kill(daemon.pid, signal.SIGHUP)
                    wait_until(
                        lambda: "the configuration was read again" in daemon.log(), "a reading"
                    )
                finally:
                    site_tokens.write_text(before, "ascii")
                with pytest.raises(ml.SecurityError, match="the token is not one of this"):
                    model.compute(ONE)
                assert keeps.compute(ONE).tolist() == [3]
            with pytest.raises(ml.SecurityError, match="the token is not one of this"):
                ml.connect(address, ca=ca, token=TOKEN)
        assert TOKEN not in daemon.log()


def test_a_token_says_who_calls_where_certificates_are_shown_too(address: str, site: Site) -> None:
    with (
        connected(address, **site.client("alice")) as alice,
        connected(address, **site.client("alice", TOKEN)) as camera,
        alice.load(small.add(1)),
        camera.load(small.add(2)),
    ):
        for client in (alice, camera):
            assert len(client.connection.models()) == 1
    with pytest.raises(ml.SecurityError, match="the token is not one of this service's"):
        ml.connect(address, **site.client("alice", "x" * 40))
    with pytest.raises(ml.SecurityError, match="the certificate names dns:nobody"):
        ml.connect(address, **site.client("nobody"))
    with ml.connect(address, **site.client("nobody", TOKEN)) as connection:
        assert connection.models() == ()


def test_two_certificates_are_two_principals(address: str, site: Site, daemon: Daemon) -> None:
    with (
        raw(address, site, "alice") as alice,
        raw(address, site, "bob") as bob,
        connected(address, **site.client("bob")) as bobs,
        bobs.load(small.add(5)) as model,
    ):
        first, second = (
            pb_grpc.ModelLoaderStub(channel)  # type: ignore[no-untyped-call]
            for channel in (alice, bob)
        )
        session = first.OpenSession(pb.OpenSessionRequest(protocol_version=1))
        opened = next(session).opened
        assert opened.origin == "client:dns:alice.example"
        mine = (("model-loader-session", opened.token.hex()),)
        loaded = first.Load(load_parts(small.add(1), relayed=True), metadata=mine)
        with pytest.raises(grpc.RpcError) as caught:
            first.Load(load_parts(small.add(1)), metadata=mine)
        assert detail_of(caught.value).message.startswith("a client of the network has its models")
        # The other has stolen the session's token, and the model's name.
        for method, request in (
            ("Compute", pb.ComputeRequest(model_id=loaded.model_id)),
            ("GetModel", pb.GetModelRequest(model_id=loaded.model_id)),
            ("ListModels", pb.ListModelsRequest()),
            ("CloseModel", pb.CloseModelRequest(model_id=loaded.model_id)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                getattr(second, method)(request, metadata=mine)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert detail_of(caught.value).cause == "forbidden"
        health = health_pb2_grpc.HealthStub(bob)
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service=f"model/{loaded.model_id}"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        own = health_pb2_grpc.HealthStub(alice)
        checked = own.Check(health_pb2.HealthCheckRequest(service=f"model/{loaded.model_id}"))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        rows = first.ListModels(pb.ListModelsRequest(), metadata=mine).models
        assert [row.model_id for row in rows] == [loaded.model_id]
        assert [row.origin for row in bobs.connection.models()] == ["the same for all"]
        # A user of this machine has no place among them, nor they in his.
        with ml.connect(daemon.directory) as local:
            assert local.models() == ()
        everybody = json.loads(run_command("ps", "--json", "--address", daemon.directory).stdout)
        users = sorted(row["user"] for row in everybody["models"])
        assert users == ["cn:bob", "dns:alice.example"]
        assert "dns:alice.example" in run_command("ps", "--address", daemon.directory).stdout
        assert 'user="cn:bob"' in _metrics(daemon)
        assert "user=cn:bob" in daemon.log()
        run_command("kill", "--user", "cn:bob", "--address", daemon.directory)
        with pytest.raises(ml.OperationError, match="administrator"):
            model.compute(ONE)
        assert len(first.ListModels(pb.ListModelsRequest(), metadata=mine).models) == 1
        session.cancel()


def _metrics(daemon: Daemon) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.connect(str(daemon.directory / "metrics.sock"))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = b""
        while piece := connection.recv(1 << 16):
            text += piece
    return text.decode()


def test_each_client_has_the_limits_of_its_policy(address: str, site: Site) -> None:
    with (
        connected(address, **site.client("small")) as small_one,
        connected(address, **site.client("alice")) as alice,
    ):
        assert small_one.connection.limits.processes == 1
        with small_one.load(small.dynamic_batch()) as model:
            with pytest.raises(ml.QuotaExceededError) as caught:
                small_one.load(small.add(1))
            assert caught.value.limit == "processes"
            with pytest.raises(ml.QuotaExceededError) as caught:
                model.compute(np.ones((1000, 4), np.float32))
            assert caught.value.limit == "tensor_bytes"
        models = [alice.load(small.add(number)) for number in range(3)]
        with pytest.raises(ml.QuotaExceededError, match="too many models"):
            alice.load(small.add(1))
        assert [float(model.compute(ONE)[0]) for model in models] == [1, 2, 3]


def test_what_is_not_on_the_port(address: str, site: Site) -> None:
    with raw(address, site, "alice") as channel:
        admin = admin_pb_grpc.AdminStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as caught:
            admin.Status(admin_pb.StatusRequest(), timeout=HANG_SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        call: Any = channel.unary_unary("/model_loader.v1.ModelLoader/Formats")  # type: ignore[call-arg]
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff" * 10, timeout=HANG_SECONDS)
        assert detail_of(caught.value).cause == "invalid-input"


class Impostor(threading.Thread):
    """A server that keeps whatever it can read."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(daemon=True)
        self.heard = b""
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.start()

    def run(self) -> None:
        """Take one connection after the other."""
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            try:
                connection.settimeout(0.5)
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                while piece := connection.recv(4096):
                    self.heard += piece
            except OSError:
                continue
            finally:
                connection.close()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.join(HANG_SECONDS)


def test_no_token_is_sent_to_whom_cannot_prove_who_it_is(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.folder / "wrong.pem", site.folder / "wrong.key")
    with closing(Impostor(context)) as secured, closing(Impostor(None)) as plain:
        with pytest.raises(ml.SecurityError, match="does not prove to be"):
            ml.connect(secured.address, ca=site.authority.certificate, token=TOKEN)
        with pytest.raises(ml.NetworkError, match=r"within 10 s|before TLS"):
            ml.connect(plain.address, ca=site.authority.certificate, token=TOKEN)
    assert secured.heard == b""
    assert TOKEN.encode() not in plain.heard


def test_the_services_name_is_checked(site: Site, address: str) -> None:
    elsewhere = address.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises((ml.SecurityError, ml.NetworkError)):
        ml.connect(elsewhere, **site.client("alice"))
    with ml.connect(address.replace("127.0.0.1", "localhost"), **site.client("alice")) as found:
        assert found.relayed
        assert found.address.startswith("tcp://localhost:")
    shown = site.client("alice") | {"ca": site.stranger.certificate}
    with pytest.raises(ml.SecurityError, match="does not prove to be"):
        ml.connect(address, **shown)


def test_connections_are_bounded_in_number_and_time(site: Site) -> None:
    extra = "[service]\nhandshake_seconds = 1\n" + "[[policy]]\ncertificates=['cn:bob']"
    file = site.configuration("127.0.0.1:0", client_ca=True, policies=extra)
    text = file.read_text("utf-8").replace("[tcp]", "[tcp]\nconnections = 4\nidle_seconds = 1", 1)
    file.write_text(text, encoding="utf-8")
    with closing(Daemon(config=file)) as daemon:
        host, _, port = address_of(daemon).removeprefix("tcp://").rpartition(":")
        there = (host, int(port))
        silent = [socket.create_connection(there, HANG_SECONDS) for _ in range(4)]
        # One more is turned away at once, those that say nothing when their time is over.
        with socket.create_connection(there, HANG_SECONDS) as one_more:
            assert _ends(one_more)
        for connection in silent:
            assert _ends(connection)
            connection.close()
        context = ssl.create_default_context(cafile=str(site.authority.certificate))
        context.load_cert_chain(site.folder / "bob.pem", site.folder / "bob.key")
        context.set_alpn_protocols(["h2"])
        with _secured(context, there) as idle:
            idle.sendall(PREFACE)
            assert _ends(idle)
        with ml.connect(address_of(daemon), **site.client("bob")) as client:
            time.sleep(2)  # longer than an idle connection lives: an open session is not idle
            assert client.models() == ()


def test_who_calls_what_is_no_text_ends_the_port_for_nobody(address: str, site: Site) -> None:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    context = ssl.create_default_context(cafile=str(site.authority.certificate))
    context.load_cert_chain(site.folder / "nobody.pem", site.folder / "nobody.key")
    context.set_alpn_protocols(["h2"])
    block = headers("/model_loader.v1.ModelLoader/\udcfe")
    frame = len(block).to_bytes(3, "big") + bytes((Frame.HEADERS, 5)) + (1).to_bytes(4, "big")
    with connected(address, **site.client("alice")) as client, client.load(small.add(1)) as model:
        with _secured(context, (host, int(port))) as stranger:
            stranger.sendall(PREFACE + frame + block)
            heard = b""
            while b"Method not found" not in heard:
                piece = stranger.recv(4096)
                assert piece, heard
                heard += piece
        assert model.compute(ONE).tolist() == [2]
        with connected(address, **site.client("bob")) as other, other.load(small.add(2)) as another:
            assert another.compute(ONE).tolist() == [3]


def _secured(context: ssl.SSLContext, there: tuple[str, int]) -> ssl.SSLSocket:
    """Connect as soon as there is room: a place is free a moment after its connection's end."""
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        plain = socket.create_connection(there, HANG_SECONDS)
        try:
            return context.wrap_socket(plain, server_hostname=there[0])
        except OSError:
            plain.close()
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _ends(connection: socket.socket) -> bool:
    """Wait for its end, whatever comes before."""
    try:
        while connection.recv(4096):
            continue
    except ConnectionError:
        return True
    return True


def test_new_files_hold_for_new_connections(site: Site, tmp_path: Path) -> None:
    file = site.configuration("127.0.0.1:0", client_ca=True)
    with closing(Daemon(config=file)) as daemon:
        address = address_of(daemon)
        with connected(address, **site.client("alice")) as client:
            model = client.load(small.add(1))
            renewed = site.stranger.sign("renewed", "IP:127.0.0.1")
            text = file.read_text("utf-8")
            for name, path in zip(("server.pem", "server.key"), renewed, strict=True):
                text = text.replace(str(site.folder / name), str(path))
            file.write_text(text, encoding="utf-8")
            os.kill(daemon.pid, signal.SIGHUP)
            wait_until(lambda: "the configuration was read again" in daemon.log(), "a reading")
            with pytest.raises(ml.SecurityError, match="does not prove to be"):
                ml.connect(address, **site.client("alice"))
            shown = site.client("alice") | {"ca": site.stranger.certificate}
            with ml.connect(address, **shown) as connection:
                assert connection.models()
            assert model.compute(ONE).tolist() == [2]


def test_the_command_line(address: str, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "add.tflite"
    file.write_bytes(small.add(1))
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n", "ascii")
    flags = (
        *("--address", address, "--tls-ca", site.authority.certificate),
        *("--tls-certificate", site.folder / "bob.pem", "--tls-key", site.folder / "bob.key"),
    )
    done = run_command("run", file, "--random", "1", *flags)
    assert done.returncode == 0, done.stderr
    done = run_command("ps", "--json", *flags, "--token-file", token)
    assert json.loads(done.stdout)["models"] == []
    assert json.loads(done.stdout)["service"] == address
    done = run_command("status", "--address", address)
    assert "give ca=" in done.stderr
    assert done.returncode != 0
    done = run_command("kill", "--user", "cn:bob", "--address", address)
    assert "steered on its own machine" in done.stderr


def test_the_environment_says_what_is_not_given(address: str, site: Site, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n", "ascii")
    program = (
        "import model_loader as ml\n"
        "with ml.create_context() as context:\n"
        "    print(context.connection.address, context.connection.models())\n"
    )
    environment = os.environ | {
        "MODEL_LOADER_ADDRESS": address.replace("tcp://", "grpcs://"),
        "MODEL_LOADER_TLS_CA": str(site.authority.certificate),
        "MODEL_LOADER_TLS_CERTIFICATE": str(site.folder / "nobody.pem"),
        "MODEL_LOADER_TLS_KEY": str(site.folder / "nobody.key"),
        "MODEL_LOADER_TOKEN_FILE": str(token),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )
    assert (done.stdout, done.stderr) == (f"{address} ()\n", "")
