"""What holds when a parked model comes back; no process is made."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from loader_service.broker.device_policy import DeviceOrder, device_order
from loader_service.broker.groups import Owner
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.returning import Original, Returning
from loader_service.broker.settings import Policy, Settings
from loader_service.devices.catalogue import grants_together
from loader_service.sandbox.grants import NOTHING
from model_loader_wire.causes import Cause
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.v1 import model_loader_pb2 as pb

USER = 1000
OWNER = Owner(USER, "my program")
LIBRARY = "/proc/self/exe"
"""Any file that is there: the broker only looks whether it is."""
A, B = f"external:a={LIBRARY},/dev/null", f"external:b={LIBRARY}"


def settings(*devices: str) -> Settings:
    """A service whose policy for the user enables these devices."""
    policy = Policy(name="users", uids=frozenset({USER}), devices=devices)
    return Settings(directory="", policies=(policy,))


async def order_of_the_return(principals: Principals, order: DeviceOrder) -> DeviceOrder:
    """Bring a model back that was loaded with an order; gives what its worker would get."""
    seen: list[DeviceOrder] = []

    @asynccontextmanager
    async def held(*_: object) -> Any:
        yield

    async def spawn(*values: Any) -> Any:
        seen.append(values[5])
        raise refuse(Cause.UNAVAILABLE, "no process is made")

    def let(*_: object) -> None:
        """Refuse nothing."""

    returning = Returning(
        principals,
        cast(Any, SimpleNamespace(check_return=let)),
        cast(Any, SimpleNamespace(spawn=spawn)),
        cast(Any, SimpleNamespace(held=held)),
        cast(Any, SimpleNamespace(check=let)),
        cast(Any, None),
        0,
    )
    original = Original(
        session=cast(Any, SimpleNamespace(owner=OWNER, principal=USER)),
        limits=DEFAULT_LIMITS,
        num_threads=1,
        layers=(),
        devices=order,
        content=cast(Any, SimpleNamespace(size=1)),
        sha256=bytes(32),
        description=cast(Any, None),
    )
    with pytest.raises(Refusal, match="no process is made"):
        await returning.bring_back(original, cast(Any, None))
    (found,) = seen
    return found


def test_a_device_that_is_not_enabled_any_more_is_not_granted_to_a_model_that_comes_back() -> None:
    principals = Principals(settings(A, B))
    header = pb.LoadHeader(device_options=pb.DeviceOptions(execution_preference="undefined"))
    order = device_order(principals.policy_for(OWNER), OWNER, header)
    assert order is not None
    assert asyncio.run(order_of_the_return(principals, order)) == order
    principals.replace(settings(B))
    found = asyncio.run(order_of_the_return(principals, order))
    assert {each.name: each.disabled for each in found.enabled} == {
        "external:a": "it is not enabled any more",
        "external:b": "",
        "reference": "",
        "xnnpack": "",
    }
    assert grants_together(order.enabled).device_nodes == ("/dev/null",)
    assert grants_together(found.enabled) == NOTHING
