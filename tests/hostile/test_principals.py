"""What belongs to one user cannot be named, used, seen, killed or filled up by another.

The intruder is a process of another uid that was told everything that the victim's client knows.
What it gets for the victim's names is, to the letter, what it gets for names that never were.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from loader_service.writer import hostile, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.hostile.intruder import NEVER
from tests.shared_models import REPOSITORY
from tests.support.raw_client import RawSession, Service, detail_of, exchange_over

pytestmark = pytest.mark.isolation

ONE = np.ones(1, np.float32)
VICTIMS_MODEL = small.add(7)
OTHER = 54321
ABOUT_A_MODEL = ("Compute", "Reset", "GetModel")
FORBIDDEN_TOKEN = [
    "PERMISSION_DENIED",
    "forbidden",
    "the session's token is not valid: open a session first",
]


class Victim:
    """A user with a model on each road."""

    def __init__(self, service: Service) -> None:
        self.session = RawSession(service.directory, "origin")
        self.direct = self.session.load(VICTIMS_MODEL)
        self.relayed = self.session.load(VICTIMS_MODEL, relayed=True)
        self.channel = self.session.channel(self.direct.model_id)
        self.known = {
            "token": self.session.welcome.session.token.hex(),
            "grpc_path": self.session.welcome.grpc_path,
            "origin": self.session.welcome.session.origin,
            "direct": self.direct.model_id,
            "relayed": self.relayed.model_id,
            "sha256": self.direct.sha256.hex(),
            "worker_pid": self.direct.isolation.worker_pid,
        }

    def is_undisturbed(self) -> None:
        """Assert that both models answer, and no other is the victim's."""
        (answer,) = exchange_over(self.channel, [ONE]).tensors
        (relayed,) = self.session.compute(self.relayed.model_id, ONE).outputs
        assert bytes(answer) == relayed.data == (ONE + 7).tobytes()
        assert self.session.models() == [self.direct.model_id, self.relayed.model_id]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A daemon as others may use it."""
    limits: dict[str, float] = {"models_per_origin": 6}
    with Service(limits, allowed_uids=[OTHER], crash_loop_deaths=2) as service:
        service.directory.chmod(0o755)
        yield service


@pytest.fixture(scope="module")
def victim(service: Service) -> Victim:
    """Somebody with models."""
    return Victim(service)


@pytest.fixture(scope="module")
def intrusion(service: Service, victim: Victim) -> dict[str, Any]:
    """Everything that the intruder tried, and what came of it."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.hostile.intruder"),
            *(str(service.directory), str(OTHER), json.dumps(victim.known)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_token_is_worth_nothing_to_another(intrusion: dict[str, Any]) -> None:
    """Not on the intruder's own socket, nor after its session's end; as little as a forged one."""
    assert set(intrusion["tokens"]) == {"theirs", "nobody's", "ended", "stream ended"}
    for whose, calls in intrusion["tokens"].items():
        assert len(calls) == 9
        for name, made in calls.items():
            assert made == FORBIDDEN_TOKEN, (whose, name, made)


def test_anothers_socket_cannot_be_reached(intrusion: dict[str, Any]) -> None:
    assert intrusion["their socket"]["room"] == "closed"
    assert set(map(tuple, intrusion["their socket"]["calls"].values())) == {("UNAVAILABLE",)}


def test_anothers_model_is_a_name_that_never_was(victim: Victim, intrusion: dict[str, Any]) -> None:
    never = intrusion["models"][NEVER]
    for name in ABOUT_A_MODEL:
        assert never[name][:2] == ["PERMISSION_DENIED", "forbidden"]
    assert never["CloseModel"] == ["answered", ""]
    assert never["channel"][0::2] == ["forbidden", 0]
    assert never["health"][0] == "NOT_FOUND"
    for model_id in (victim.direct.model_id, victim.relayed.model_id, ""):
        assert intrusion["models"][model_id] == never
    assert intrusion["listed"] == []


@pytest.mark.usefixtures("intrusion")
def test_the_victim_has_noticed_nothing(victim: Victim) -> None:
    victim.is_undisturbed()


def test_anothers_worker_cannot_be_touched(intrusion: dict[str, Any]) -> None:
    assert set(intrusion["process"].values()) == {"refused"}
    assert set(intrusion["process"]) == {"kill", "memory", "descriptors", "environment"}


def test_an_origin_is_a_name_within_its_user(victim: Victim, intrusion: dict[str, Any]) -> None:
    """The same name is another's: full, crashed in and known to that other only."""
    filled = intrusion["filled"]
    assert filled["origin"] == victim.known["origin"]
    assert filled["crashes"] == ["crashed", "crashed", "crash-loop"]
    assert (filled["models"], filled["then"], filled["listed"]) == (6, "limit", 6)
    assert filled["found"] == ""  # what the victim loaded, nobody else finds by its digest
    assert filled["own found"] > 0
    victim.session.call("CloseModel", pb.CloseModelRequest(model_id=_loaded(victim)))
    with pytest.raises(grpc.RpcError) as caught:
        victim.session.load(hostile.abort_at_load())
    assert detail_of(caught.value).cause == "crashed"


def _loaded(victim: Victim) -> str:
    reply = victim.session.load(VICTIMS_MODEL)
    assert reply.model_id not in (victim.direct.model_id, victim.relayed.model_id)
    return reply.model_id


def test_sessions_of_one_user_do_not_reach_each_others_models(
    service: Service, victim: Victim
) -> None:
    """Nor does the token of one serve on the connection of another."""
    with RawSession(service.directory, "origin") as other:
        for name in (victim.direct.model_id, NEVER):
            for method, request in (
                ("GetModel", pb.GetModelRequest(model_id=name)),
                ("Compute", pb.ComputeRequest(model_id=name)),
                ("Reset", pb.ResetRequest(model_id=name)),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    other.call(method, request)
                assert detail_of(caught.value).message == ("this session has no model of that name")
            reply, descriptors = other.attach.receive_channel(name)
            assert (reply.error.cause, descriptors) == ("forbidden", [])
        other.call("CloseModel", pb.CloseModelRequest(model_id=victim.direct.model_id))
    victim.is_undisturbed()


def test_names_cannot_be_guessed(service: Service) -> None:
    """Tokens have 256 random bits and ids 96: none repeats, and no bit is the same in all.

    Of so many, one bit is the same in all by chance once in a million runs.
    """
    sessions = [RawSession(service.directory, f"guess-{number}") for number in range(30)]
    try:
        tokens = [session.welcome.session.token for session in sessions]
        ids = [bytes.fromhex(sessions[0].load(small.add()).model_id) for _ in range(2)]
        ids += [bytes.fromhex(session.load(small.add()).model_id) for session in sessions[1:]]
    finally:
        for session in sessions:
            session.close()
    for names, size in ((tokens, 32), (ids, 12)):
        assert {len(name) for name in names} == {size}
        assert len(set(names)) == len(names)
        numbers = [int.from_bytes(name) for name in names]
        ones, zeros = 0, 0
        for number in numbers:
            ones |= number
            zeros |= ~number & (1 << 8 * size) - 1
        assert ones == zeros == (1 << 8 * size) - 1
