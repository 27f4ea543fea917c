"""``grpc.health.v1``: true of the service and of each model, at once, and for its owner only."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from loader_service.broker.descriptors import RESERVE
from loader_service.writer import small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.conftest import Bystander
from tests.broker.test_attach import as_user
from tests.support.raw_client import HANG_SECONDS, RawSession, Service

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
MODEL = small.add()


class Asked:
    """The health service on a session's socket; it needs no token."""

    def __init__(self, session: RawSession) -> None:
        self._stub = health_pb2_grpc.HealthStub(session.grpc)

    def check(self, name: str) -> Any:
        """The status of a name, or the code of the refusal."""
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            return self._stub.Check(request, timeout=HANG_SECONDS).status
        except grpc.RpcError as error:
            refusal: Any = error
            return refusal.code()

    def every(self) -> dict[str, Any]:
        """The status of every name."""
        reply = self._stub.List(health_pb2.HealthListRequest(), timeout=HANG_SECONDS)
        return {name: state.status for name, state in reply.statuses.items()}

    def watch(self, name: str) -> Any:
        """The stream of a name's states."""
        request = health_pb2.HealthCheckRequest(service=name)
        return self._stub.Watch(request, timeout=HANG_SECONDS)


def test_the_service_and_its_models_are_serving(session: RawSession) -> None:
    asked = Asked(session)
    reply = session.load(MODEL)
    assert asked.check("") == SERVING
    assert asked.check(f"model/{reply.model_id}") == SERVING


@pytest.mark.parametrize("name", ["model/", "model/x", "x", "model_loader.v1.ModelLoader"])
def test_a_name_that_there_is_not(session: RawSession, name: str) -> None:
    asked = Asked(session)
    assert asked.check(name) is grpc.StatusCode.NOT_FOUND
    watched = asked.watch(name)
    assert next(watched).status == SERVICE_UNKNOWN
    watched.cancel()


def test_an_id_alone_is_no_name(session: RawSession) -> None:
    reply = session.load(MODEL)
    assert Asked(session).check(reply.model_id) is grpc.StatusCode.NOT_FOUND


def test_exactly_the_model_that_died_is_not_serving(session: RawSession) -> None:
    asked = Asked(session)
    dead, living = session.load(MODEL), session.load(MODEL)
    watched = asked.watch(f"model/{dead.model_id}")
    assert next(watched).status == SERVING
    os.kill(dead.isolation.worker_pid, signal.SIGKILL)
    assert next(watched).status == NOT_SERVING
    assert asked.check(f"model/{dead.model_id}") == NOT_SERVING
    assert asked.check(f"model/{living.model_id}") == SERVING
    assert asked.check("") == SERVING
    every = asked.every()
    assert every[""] == every[f"model/{living.model_id}"] == SERVING
    assert every[f"model/{dead.model_id}"] == NOT_SERVING
    late = asked.watch(f"model/{dead.model_id}")
    assert next(late).status == NOT_SERVING
    watched.cancel()
    late.cancel()


def test_a_closed_model_is_not_serving_and_one_of_a_closed_session_unknown(
    service: Service, session: RawSession, bystander: Bystander
) -> None:
    asked = Asked(session)
    reply = session.load(MODEL)
    with RawSession(service.directory) as other:
        # The principal's, whichever session it belongs to.
        name = f"model/{other.load(MODEL).model_id}"
        assert asked.check(name) == SERVING
        watched = asked.watch(name)
        assert next(watched).status == SERVING
    assert next(watched).status == NOT_SERVING
    watched.cancel()
    service.wait_for_workers([bystander.pid, reply.isolation.worker_pid])
    assert asked.check(name) is grpc.StatusCode.NOT_FOUND
    session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
    assert asked.check(f"model/{reply.model_id}") == NOT_SERVING


def test_a_service_that_can_make_no_worker_says_so_until_it_can() -> None:
    with Service(ping_seconds=0.1) as service, RawSession(service.directory) as session:
        watched = Asked(session).watch("")
        assert next(watched).status == SERVING
        opened = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        # There is the reserve, and nothing beside it.
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (opened + RESERVE, before[1]))
        with pytest.raises(grpc.RpcError):
            session.load(MODEL)
        assert next(watched).status == NOT_SERVING
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        # It finds out by itself: nobody loads a model meanwhile.
        assert next(watched).status == SERVING
        watched.cancel()
        session.load(MODEL)


def test_the_end_of_the_service_is_told() -> None:
    with Service() as service, RawSession(service.directory) as session:
        watched = Asked(session).watch("")
        assert next(watched).status == SERVING
        os.kill(service.pid, signal.SIGTERM)
        assert next(watched).status == NOT_SERVING
        service.wait()
        assert "Traceback" not in service.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_models_are_names_that_there_are_not() -> None:
    program = """
import sys
from pathlib import Path
from tests.broker.test_health import MODEL, Asked
from tests.support.raw_client import RawSession
with RawSession(Path(sys.argv[1])) as session:
    asked = Asked(session)
    mine = session.load(MODEL)
    for name in ("", f"model/{mine.model_id}", THEIRS, "model/" + "0" * 24):
        watched = asked.watch(name)
        print(asked.check(name), next(watched).status)
        watched.cancel()
"""
    with Service(allowed_uids=[54321]) as service, RawSession(service.directory) as session:
        service.directory.chmod(0o755)
        theirs = f"model/{session.load(MODEL).model_id}"
        said = as_user(program.replace("THEIRS", repr(theirs)), 54321, service.directory, __name__)
        unknown = f"StatusCode.NOT_FOUND {SERVICE_UNKNOWN}"
        assert said == [f"{SERVING} {SERVING}"] * 2 + [unknown] * 2
        assert Asked(session).check(theirs) == SERVING
