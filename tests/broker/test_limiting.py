"""Limits that are set while the service runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from loader_service.broker.outstanding import LiveBound
from loader_service.broker.principals import LIVE_SHARED_LIMITS, Principals
from loader_service.broker.settings import Settings
from loader_service.writer import small
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SHARED_LIMITS
from model_loader_wire.v1 import admin_pb2 as pb
from tests.broker.test_admin import Admin
from tests.support.daemon import Daemon
from tests.support.raw_client import RawSession, detail_of


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon of the file's own."""
    with Daemon() as daemon:
        yield daemon


@pytest.fixture
def admin(daemon: Daemon) -> Iterator[Admin]:
    """Its admin service; what a test has set is set back."""
    daemon.wait_for_workers([])  # those of the test before may only be going, and would count
    admin = Admin(daemon.directory)
    before = shown(admin)
    yield admin
    changed = {name: value for name, value in shown(admin).items() if value != before[name]}
    set_limits(admin, {name: before[name] for name in changed})
    admin.close()


def set_limits(admin: Admin, values: dict[str, float | None]) -> Any:
    """Set limits."""
    wanted = [pb.LimitValue(name=name, value=value) for name, value in values.items()]
    return admin.ask("SetLimits", pb.SetLimitsRequest(limits=wanted))


def shown(admin: Admin) -> dict[str, float | None]:
    """Return the limits in force."""
    rows = admin.ask("ShowLimits", pb.ShowLimitsRequest()).limits
    return {row.name: row.value if row.HasField("value") else None for row in rows}


def refused(session: RawSession) -> str:
    """Load one model more; returns the limit that was over, or nothing."""
    try:
        session.load(small.add())
    except grpc.RpcError as error:
        return detail_of(error).limit
    return ""


def test_every_limit_is_shown(admin: Admin) -> None:
    found = shown(admin)
    assert found.keys() == {*Limits.__dataclass_fields__, *SHARED_LIMITS}
    assert {name: found[name] for name in DEFAULT_LIMITS.set_values()} == (
        DEFAULT_LIMITS.set_values()
    )
    assert found["cpu_seconds"] is None
    reply = admin.ask("ShowLimits", pb.ShowLimitsRequest())
    assert next(iter(reply.policies)) == "service"
    settable = {row.name for row in reply.limits if row.settable}
    assert settable == {*Limits.__dataclass_fields__, *LIVE_SHARED_LIMITS}


@pytest.mark.parametrize("limit", ["models_per_origin", "processes", "total_processes"])
def test_a_limit_holds_for_the_next_loads_and_leaves_what_is_there(
    admin: Admin, daemon: Daemon, limit: str
) -> None:
    with RawSession(daemon.directory, limit) as session:
        assert [refused(session), refused(session)] == ["", ""]
        set_limits(admin, {limit: 1})
        assert refused(session) == limit
        assert len(session.models()) == 2
        set_limits(admin, {limit: 3})
        assert [refused(session), refused(session)] == ["", limit]
    told = [event for event in admin_events(admin) if event.kind == "settings-changed"]
    facts = {fact.name: fact.text for fact in told[-1].facts}
    assert facts["changes"] == f"{limit}: 1 to 3"
    assert facts["by"].startswith("uid ")


def test_processor_time_that_is_set_is_whole_seconds_for_the_kernel(
    admin: Admin, daemon: Daemon
) -> None:
    set_limits(admin, {"cpu_seconds": 100})
    try:
        with RawSession(daemon.directory, "cpu") as session:
            assert session.load(small.add())
    finally:
        set_limits(admin, {"cpu_seconds": None})


def admin_events(admin: Admin) -> list[Any]:
    """Return the events that are kept."""
    return list(admin.ask("Events", pb.EventsRequest()))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"models": 1}, "no limit is called 'models'"),
        ({"\u202emodels": 1.5}, "no limit is called '\\u202emodels'"),
        ({"cpu_seconds": 1.5}, "limit cpu_seconds must be a whole number, not 1.5"),
        ({"processes": 0}, "limit processes must be above zero, not 0"),
        ({"processes": 1.5}, "limit processes must be a whole number, not 1.5"),
        ({"processes": float("inf")}, "limit processes must be a whole number, not inf"),
        ({"load_seconds": float("nan")}, "limit load_seconds must be above zero, not nan"),
        ({"processes": None}, "limit processes needs a value"),
        ({"total_processes": None}, "limit total_processes must be int, not NoneType"),
        ({"grpc_connections": 5}, "grpc_connections can only be set when the service starts"),
    ],
)
def test_what_cannot_be_changes_nothing(
    admin: Admin, values: dict[str, float | None], text: str
) -> None:
    before = shown(admin)
    with pytest.raises(grpc.RpcError) as caught:
        set_limits(admin, {"models_per_origin": 3, **values})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in str(caught.value.details())
    assert shown(admin) == before


def test_a_policy_that_there_is_not(admin: Admin) -> None:
    for method, request in (
        ("ShowLimits", pb.ShowLimitsRequest(policy="vision")),
        ("SetLimits", pb.SetLimitsRequest(policy="vision")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            admin.ask(method, request)
        assert caught.value.details() == "there is no policy 'vision'"


def test_what_the_service_counts_itself_is_looked_up_each_time() -> None:
    principals = Principals(Settings(directory="", total_calls_in_flight=1))
    bound = LiveBound(principals, "total_calls_in_flight")
    assert bound.maximum == 1
    principals.replace(Settings(directory="", total_calls_in_flight=2, grpc_connections=7))
    assert bound.maximum == 2
    assert principals.settings.grpc_connections != 7
