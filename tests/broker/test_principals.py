"""Ordinary principals and embedders: which operators their origins' models may use."""

from __future__ import annotations

import os

import grpc
import pytest

from loader_service.broker.groups import Owner
from loader_service.broker.principals import Principals
from loader_service.broker.settings import Settings
from loader_service.writer import costly, small
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.test_attach import as_user
from tests.support.raw_client import HANG_SECONDS, RawSession, Service, detail_of

OWN = ("program:/usr/bin/browser", "module:browser", "interactive:/home/a", "uid:1000")
WEB = (
    "https://a.example",
    "http://localhost:8080",
    "null",
    "a.example",
    "file://",
    "program://a.example",
    "uid",
    "Program:/usr/bin/browser",
    "x",
)
STANDARD = costly.endless()
"""A model that only the standard operators can run: it has a WHILE."""


def operators_for(settings: Settings, owner: Owner) -> str:
    """Which operators the models of an origin may use."""
    return Principals(settings).policy_for(owner).operators


@pytest.mark.parametrize("origin", OWN + WEB)
def test_an_ordinary_principal_gains_and_loses_nothing_by_a_name(origin: str) -> None:
    settings = Settings(directory="", embedder_uids=frozenset({5}), allowed_uids=frozenset({6}))
    assert operators_for(settings, Owner(6, origin)) == "standard"
    hardened = Settings(directory="", operators="hardened", allowed_uids=frozenset({6}))
    assert operators_for(hardened, Owner(6, origin)) == "hardened"


def test_an_embedders_origins_are_of_the_web_but_for_its_own() -> None:
    settings = Settings(directory="", embedder_uids=frozenset({5}))
    assert {operators_for(settings, Owner(5, origin)) for origin in OWN} == {"standard"}
    assert {operators_for(settings, Owner(5, origin)) for origin in WEB} == {"hardened"}
    # What the service does not allow, no name gives.
    strict = Settings(directory="", operators="hardened", embedder_uids=frozenset({5}))
    assert {operators_for(strict, Owner(5, name)) for name in OWN + WEB} == {"hardened"}


def test_who_may_attach() -> None:
    settings = Settings(
        directory="", allowed_uids=frozenset({5, 6}), embedder_uids=frozenset({6, 7})
    )
    assert settings.users == {os.geteuid(), 5, 6, 7}


def said_of(session: RawSession, model: bytes) -> str:
    """Load a model and let it go; returns why it was refused, or nothing."""
    try:
        reply = session.load(model)
    except grpc.RpcError as error:
        detail = detail_of(error)
        assert detail.cause == "unsupported"
        return detail.message
    session.call("CloseModel", pb.CloseModelRequest(model_id=reply.model_id))
    return ""


@pytest.mark.parametrize("isolation", ["model", "origin"])
def test_an_embedders_models_are_verified_by_their_origin(isolation: str) -> None:
    with Service(embedder_uids=[os.geteuid()], isolation=isolation) as service:
        for origin, refused in (("https://a.example", True), ("program:/bin/browser", False)):
            with RawSession(service.directory, origin) as session:
                assert said_of(session, small.add()) == ""
                assert ("(WHILE)" in said_of(session, STANDARD)) is refused
        # On the road without an attach connection, too.
        with RawSession(service.directory) as session:
            stream = session.stub.OpenSession(
                pb.OpenSessionRequest(protocol_version=1, origin="https://b.example"),
                timeout=HANG_SECONDS,
            )
            token = next(stream).opened.token.hex()
            session.metadata = (("model-loader-session", token),)
            assert "(WHILE)" in said_of(session, STANDARD)
            stream.cancel()


PROGRAM = """
import sys
from pathlib import Path
from tests.broker.test_principals import STANDARD, said_of
from tests.support.raw_client import RawSession
for origin in ("https://a.example", "program:/bin/browser"):
    with RawSession(Path(sys.argv[1]), origin) as session:
        print("WHILE" in said_of(session, STANDARD))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_each_user_has_the_policy_that_the_operator_gave() -> None:
    with Service(allowed_uids=[54322], embedder_uids=[54321]) as service:
        service.directory.chmod(0o755)
        for uid, refused in ((54321, ["True", "False"]), (54322, ["False", "False"])):
            assert as_user(PROGRAM, uid, service.directory, __name__) == refused
        with RawSession(service.directory, "https://a.example") as session:
            assert said_of(session, STANDARD) == ""
