"""Admission by memory: what is used and what is coming, at each level, with each bound."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psutil
import pytest

from loader_service.broker.admission import COPIES, WORKER_BYTES, Admission
from loader_service.broker.groups import PART_OF_HOST, Owner, total_memory
from loader_service.broker.principals import Principals
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Settings
from loader_service.sandbox import cgroup
from loader_service.writer import small
from model_loader_wire.causes import Failure
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.broker.test_attach import as_user
from tests.broker.test_shared_limits import needs_cgroup
from tests.support.raw_client import RawSession, Service, detail_of

MEBIBYTE = 1 << 20
NEED = WORKER_BYTES
"""Of a model without bytes."""
A, B, C = Owner(1, "a"), Owner(1, "b"), Owner(2, "a")
PATHS = {A: "user-1/origin-a", B: "user-1/origin-b", C: "user-2/origin-a"}


class Levels:
    """An admission whose use of memory the test says."""

    def __init__(self, total: int, free: int = 1 << 40, **settings: Any) -> None:
        self.used: dict[str, int] = {}
        self.free = free
        users = frozenset(settings.pop("users", ()))
        made = Settings(directory="", allowed_uids=users, **settings)
        self._admission = Admission(Principals(made), total, self._use, lambda: self.free)

    def _use(self, path: str) -> int:
        return sum(
            used for at, used in self.used.items() if not path or f"{at}/".startswith(f"{path}/")
        )

    async def load(
        self, owner: Owner, held: AsyncExitStack, size: int = 0, seconds: float = 0
    ) -> Failure | None:
        """Let a model in until `held` is left; returns why not."""
        try:
            await held.enter_async_context(
                self._admission.held(owner, DEFAULT_LIMITS, size, seconds)
            )
        except Refusal as refusal:
            return refusal.failure
        return None


def run(test: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
    """Run a test with a stack that holds what it lets in."""

    async def bounded() -> None:
        async with asyncio.timeout(20), AsyncExitStack() as held:
            await test(held)

    asyncio.run(bounded())


def test_what_is_coming_counts_until_it_has_come() -> None:
    async def test(held: AsyncExitStack) -> None:
        levels = Levels(3 * NEED)
        loading = AsyncExitStack()
        for _ in range(3):
            assert await levels.load(A, loading) is None
        failure = await levels.load(A, held)
        assert failure is not None
        assert (failure.limit, failure.value, failure.maximum) == (
            *("total_memory_bytes", 4 * NEED, 3 * NEED),
        )
        assert "close models, load a smaller one, or try again later" in failure.message
        await loading.aclose()
        # They turned out to be small: there is room for as many more.
        levels.used[PATHS[A]] = 3 * MEBIBYTE
        assert await levels.load(A, held) is None
        assert await levels.load(A, held) is None
        assert await levels.load(A, held) is not None

    run(test)


def test_a_model_needs_its_bytes_twice_and_no_more_than_its_limit() -> None:
    async def test(held: AsyncExitStack) -> None:
        levels = Levels(NEED + COPIES * 100 * MEBIBYTE)
        assert await levels.load(A, held, 100 * MEBIBYTE + 1) is not None
        assert await levels.load(A, held, 100 * MEBIBYTE) is None
        levels = Levels(DEFAULT_LIMITS.memory_bytes or 0)
        assert await levels.load(A, held, 10 << 40) is None

    run(test)


@pytest.mark.parametrize(
    ("limit", "refused", "let_in"),
    [
        ("origin_memory_bytes", [A], [B, C]),
        ("principal_memory_bytes", [A, B], [C]),
        ("total_memory_bytes", [A, B, C], []),
    ],
)
def test_each_level_holds_all_below_it(
    limit: str, refused: list[Owner], let_in: list[Owner]
) -> None:
    async def test(held: AsyncExitStack) -> None:
        settings = {} if limit == "total_memory_bytes" else {limit: 2 * NEED}
        levels = Levels(1 << 40 if settings else 2 * NEED, **settings)
        levels.used[PATHS[A]] = NEED + 1
        for owner in refused:
            failure = await levels.load(owner, held)
            assert failure is not None
            assert (failure.limit, failure.maximum) == (limit, 2 * NEED)
        for owner in let_in:
            assert await levels.load(owner, held) is None

    run(test)


def test_a_principal_has_an_equal_share_unless_a_setting_says_otherwise() -> None:
    async def test(held: AsyncExitStack) -> None:
        users = {1, 2, os.geteuid()}
        levels = Levels(len(users) * 2 * NEED, users=users)
        levels.used[PATHS[A]] = NEED
        assert await levels.load(B, held) is None
        failure = await levels.load(B, held)
        assert failure is not None
        assert (failure.limit, failure.maximum) == ("principal_memory_bytes", 2 * NEED)
        assert await levels.load(C, held) is None
        levels = Levels(6 * NEED, users=users, principal_memory_bytes=5 * NEED)
        levels.used[PATHS[A]] = 4 * NEED
        assert await levels.load(A, held) is None

    run(test)


def test_a_machine_without_free_memory_takes_nobody_in() -> None:
    """But what one user announces does not keep another out."""

    async def test(held: AsyncExitStack) -> None:
        levels = Levels(1 << 40, free=2 * NEED)
        assert await levels.load(A, held) is None
        assert await levels.load(B, held) is None
        assert await levels.load(C, held) is None
        failure = await levels.load(B, held)
        assert failure is not None
        assert (failure.limit, failure.value, failure.maximum) == (
            *("total_memory_bytes", 3 * NEED, 2 * NEED),
        )
        assert "this machine has no memory free" in failure.message
        levels.free = NEED - 1
        assert await levels.load(Owner(3, "a"), held) is not None

    run(test)


def test_memory_that_is_being_given_back_is_waited_for() -> None:
    async def test(held: AsyncExitStack) -> None:
        levels = Levels(2 * NEED)
        levels.used[PATHS[A]] = 2 * NEED
        asyncio.get_running_loop().call_later(0.1, levels.used.clear)
        assert await levels.load(A, held, seconds=20) is None

    run(test)


def test_the_default_is_a_part_of_the_machine() -> None:
    settings = Settings(directory="")
    machine = psutil.virtual_memory().total
    assert total_memory(settings, None) == int(machine * PART_OF_HOST)
    assert total_memory(Settings(directory="", total_memory_bytes=5), None) == 5
    with cgroup.discover() or pytest.skip("no cgroup can be written to") as tree:
        above = tree.memory_above()
        assert above is None or above > 0
        assert 0 < total_memory(settings, tree) <= int(min(machine, above or machine))


def fill(session: RawSession) -> tuple[list[str], pb.ErrorDetail]:
    """Load small models until one is refused; returns their names, and why."""
    loaded = []
    while True:
        try:
            loaded.append(session.load(small.add(), relayed=True).model_id)
        except grpc.RpcError as error:
            return loaded, detail_of(error)


@pytest.mark.isolation
def test_a_service_without_room_says_so_and_has_room_again() -> None:
    needs_cgroup("memory")
    total = WORKER_BYTES + 24 * MEBIBYTE
    limits = {"models_per_origin": 64}
    with (
        Service({**limits}, total_memory_bytes=total) as service,
        RawSession(service.directory) as session,
    ):
        loaded, detail = fill(session)
        assert len(loaded) > 1
        assert (detail.cause, detail.limit, detail.maximum) == (
            *("limit", "total_memory_bytes", total),
        )
        assert detail.value > total
        for model_id in loaded:
            session.call("CloseModel", pb.CloseModelRequest(model_id=model_id))
        again, _ = fill(session)
        assert len(again) == pytest.approx(len(loaded), abs=1)


@pytest.mark.isolation
def test_sixteen_models_with_limits_above_the_machines_memory_are_let_in() -> None:
    """What they may use is no reason to refuse them: they are small."""
    limits: dict[str, float] = {"memory_bytes": psutil.virtual_memory().total}
    with Service(limits) as service, RawSession(service.directory) as session:
        loaded = [session.load(small.add(), relayed=True).model_id for _ in range(16)]
        assert session.models() == loaded


PROGRAM = """
import sys
from pathlib import Path
from tests.broker.test_admission import fill
from tests.support.raw_client import RawSession
with RawSession(Path(sys.argv[1])) as session:
    loaded, detail = fill(session)
    print(len(loaded) > 0, detail.limit)
"""


@pytest.mark.isolation
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_who_fills_all_memory_leaves_another_user_their_share() -> None:
    needs_cgroup("memory")
    total = 2 * (WORKER_BYTES + 16 * MEBIBYTE)
    with Service(
        {"models_per_origin": 64}, total_memory_bytes=total, allowed_uids=[54321]
    ) as service:
        service.directory.chmod(0o755)
        with RawSession(service.directory) as session:
            mine, detail = fill(session)
            assert (detail.limit, detail.maximum) == ("principal_memory_bytes", total // 2)
            said = as_user(PROGRAM, 54321, service.directory, __name__)
            assert said == ["True principal_memory_bytes"]
            assert session.models() == mine


def test_a_lower_memory_limit_is_a_lower_need() -> None:
    """Which is what a caller can do about a refusal."""

    async def test(held: AsyncExitStack) -> None:
        admission = Admission(
            Principals(Settings(directory="")), NEED, lambda _: 1, lambda: 1 << 40
        )
        lowered = DEFAULT_LIMITS.lowered_by(Limits(memory_bytes=NEED - 1))
        await held.enter_async_context(admission.held(A, lowered, 0, 0))
        with pytest.raises(Refusal):
            await held.enter_async_context(admission.held(A, lowered, 0, 0))

    run(test)
