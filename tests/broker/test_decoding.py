"""Requests whose bytes are no message: a status of the service's own, from every method."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from loader_service.writer import small
from tests.support.raw_client import HANG_SECONDS, RawSession, detail_of, load_parts

SERVICE = "/model_loader.v1.ModelLoader/"
HEALTH = "/grpc.health.v1.Health/"
BROKEN = {
    "a wrong wire type": b"\x0f",
    "a length beyond the end": b"\x0a\xff\xff\xff\x07x",
    "a number without end": b"\xff" * 20,
    "a text that is no UTF-8": b"\x0a\x02\xff\xfe",
}


def refused(call: Any, request: Any, session: RawSession) -> None:
    """Assert that a call is refused for the bytes of its request."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request, metadata=session.metadata, timeout=HANG_SECONDS) or ())
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    assert detail_of(error).cause == "invalid-input"
    assert "no message of this method" in detail_of(error).message


@pytest.mark.parametrize("bytes_of", BROKEN)
@pytest.mark.parametrize("method", ["Compute", "Reset", "CloseModel", "GetModel"])
def test_a_request(session: RawSession, method: str, bytes_of: str) -> None:
    channel: Any = session.grpc
    refused(channel.unary_unary(SERVICE + method), BROKEN[bytes_of], session)


def test_a_request_for_a_stream(session: RawSession) -> None:
    channel: Any = session.grpc
    refused(channel.unary_stream(SERVICE + "OpenSession"), BROKEN["a number without end"], session)
    refused(channel.unary_stream(HEALTH + "Watch"), BROKEN["a text that is no UTF-8"], session)


def test_a_request_for_health(session: RawSession) -> None:
    channel: Any = session.grpc
    refused(channel.unary_unary(HEALTH + "Check"), BROKEN["a text that is no UTF-8"], session)
    reply = channel.unary_unary(HEALTH + "Check")(b"", timeout=HANG_SECONDS)
    assert health_pb2.HealthCheckResponse.FromString(reply).status == 1


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("method", ["Load", "Inspect"])
def test_a_message_of_an_upload(session: RawSession, method: str, place: int) -> None:
    """What was begun for it is undone: the fixtures see to that."""
    parts = [part.SerializeToString() for part in load_parts(small.add())]
    parts[place] = BROKEN["a length beyond the end"]
    channel: Any = session.grpc
    refused(channel.stream_unary(SERVICE + method), iter(parts), session)
    assert len(session.models()) == 1
