"""Resource limits, each by what fails at it."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.sandbox import policy, resource_limits
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.resource_limits import ResourceLimits, apply_limits
from tests.sandbox.sandboxed import CHILD_REPORT, in_child, in_sandbox, worker_uid
from tests.support.host import user_namespaces_usable

pytestmark = pytest.mark.isolation
in_user_namespace = pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)


def refusal(act: Callable[[], object]) -> int | None:
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def limited(limits: ResourceLimits, work: Callable[[], object]) -> object:
    def child() -> object:
        os.closerange(3, CHILD_REPORT)
        apply_limits(limits)
        return work()

    return in_child(child).result()


def test_no_file_grows_no_core_is_left_and_no_memory_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "grows"

    def work() -> list[object]:
        import mmap
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
        grown = refusal(lambda: os.write(descriptor, b"x"))
        names = ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE")
        nothing = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
        locked = mmap.MAP_ANONYMOUS | mmap.MAP_PRIVATE | 0x2000  # MAP_LOCKED
        return [grown, nothing == [(0, 0)] * 4, refusal(lambda: mmap.mmap(-1, 4096, flags=locked))]

    # Root may lock memory as long as it holds CAP_IPC_LOCK, which a worker does not.
    memory = None if os.geteuid() == 0 else errno.EPERM
    assert limited(ResourceLimits(), work) == [errno.EFBIG, True, memory]


def test_no_descriptor_is_opened_at_or_above_the_limit() -> None:
    def work() -> list[int | None]:
        free = policy.OPEN_DESCRIPTORS - 3
        return [refusal(lambda: os.dup(0)) for _ in range(free + 1)]

    answers = limited(ResourceLimits(), work)
    assert answers == [None] * (policy.OPEN_DESCRIPTORS - 3) + [errno.EMFILE]


def test_private_memory_ends_at_the_data_limit() -> None:
    limit = resource_limits.data_in_use() + (64 << 20)

    def work() -> list[str]:
        held = bytearray(32 << 20)
        try:
            bytearray(64 << 20)
        except MemoryError:
            return [f"{len(held) >> 20} MiB, then refused"]
        return ["nothing was refused"]

    assert limited(ResourceLimits(data_bytes=limit), work) == ["32 MiB, then refused"]


def test_the_data_in_use_grows_by_what_is_allocated() -> None:
    def work() -> bool:
        before = resource_limits.data_in_use()
        held = bytearray(16 << 20)
        return resource_limits.data_in_use() - before >= len(held)

    assert in_child(work).result() is True


def test_limits_are_for_good_for_an_ordinary_user() -> None:
    from tests.sandbox.sandboxed import become_ordinary

    def work() -> bool:
        become_ordinary()
        apply_limits(ResourceLimits())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        except ValueError:
            return True
        return False

    assert in_child(work).result() is True


def test_a_lower_limit_of_the_host_stays() -> None:
    def work() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
        apply_limits(ResourceLimits(descriptors=1000))
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert in_child(work).result() == [300, 300]


def threads_until_refused() -> int:
    """Start threads that stay until one is refused; the count includes the main thread."""
    stop = threading.Event()
    count = 1
    try:
        while count < 50:
            threading.Thread(target=stop.wait).start()
            count += 1
    except RuntimeError:
        pass
    stop.set()
    return count


@in_user_namespace
@pytest.mark.parametrize("tasks", [1, 3, 6])
def test_threads_are_counted_exactly_in_a_user_namespace(tasks: int) -> None:
    """Two workers of one user: neither counts the other's threads nor the user's processes."""
    limits = ResourceLimits(tasks=tasks)
    if os.geteuid() == 0:
        wanted, uid = PROCESS_LAYERS, worker_uid()
    else:
        wanted, uid = PROCESS_LAYERS - {Layer.UNPRIVILEGED_UID}, None
    for _ in range(2):
        ending = in_sandbox(threads_until_refused, wanted=wanted, uid=uid, limits=lambda _: limits)
        assert ending.result() == tasks


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker its own user")
def test_threads_are_counted_exactly_for_a_user_of_its_own() -> None:
    wanted = PROCESS_LAYERS - {Layer.USER_NAMESPACE}
    ending = in_sandbox(
        threads_until_refused,
        wanted=wanted,
        uid=worker_uid(),
        limits=lambda _: ResourceLimits(tasks=4),
    )
    assert ending.result() == 4


def test_without_a_user_or_user_namespace_of_its_own_tasks_are_not_limited() -> None:
    shared = ResourceLimits.for_worker(frozenset({Layer.PID_NAMESPACE}), threads=2)
    own = ResourceLimits.for_worker(frozenset({Layer.USER_NAMESPACE}), threads=2)
    alone = ResourceLimits.for_worker(frozenset({Layer.UNPRIVILEGED_UID}), threads=1)
    assert (shared.tasks, own.tasks, alone.tasks) == (None, policy.tasks_for(2), 1)
