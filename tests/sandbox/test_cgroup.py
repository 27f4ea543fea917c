"""Cgroup trees on this host's own hierarchies: limits that really act, and trees that go away."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loader_service.sandbox import cgroup
from loader_service.sandbox.cgroup import GroupLimits, Tree, safe_name
from tests.sandbox.sandboxed import in_child


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree of this process, removed at the end; skips where nothing can be written."""
    found = cgroup.discover()
    if found is None:
        pytest.skip("no cgroup of this host can be written to")
    yield found
    assert found.remove()


def needs(tree: Tree, *controllers: cgroup.Controller) -> None:
    for controller in controllers:
        if not tree.holds(controller):
            pytest.skip(f"the {controller} controller of this host cannot be written to")


def inside(
    tree: Tree, path: str, limits: GroupLimits, work: Callable[[], int]
) -> tuple[cgroup.Group, int]:
    """Run `work` in a child that waits until it is in the group; gives the group and its status."""
    group = tree.create(path, limits)
    go, going = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        os.close(going)
        os.read(go, 1)
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    os.close(go)
    group.add(pid)
    assert group.processes() == [pid]
    os.close(going)
    return group, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_memory_beyond_the_limit_is_an_oom_kill_that_is_counted(tree: Tree) -> None:
    needs(tree, "memory")

    def grow() -> int:
        return len(bytearray(128 << 20)) >> 40

    group, status = inside(
        tree, "user-1/origin-a/worker-1", GroupLimits(memory_bytes=32 << 20), grow
    )
    assert status == -signal.SIGKILL
    assert group.oom_kills() == 1
    assert group.memory_hit() == (3, 32 << 20)
    peak = group.memory_peak()
    assert peak is None or 16 << 20 < peak <= 32 << 20
    usage = group.memory_usage()
    assert usage is not None
    assert usage < 32 << 20
    assert group.remove()


def test_a_level_says_what_it_uses_and_the_tree_what_it_may(tree: Tree) -> None:
    needs(tree, "memory")
    assert tree.memory_usage("user-1") == 0
    used: list[int | None] = []

    def grow() -> int:
        held = bytearray(16 << 20)
        used.extend(tree.memory_usage(path) for path in ("user-1/origin-a", "user-1", ""))
        return not all(use is not None and use >= len(held) for use in used)

    _, status = inside(tree, "user-1/origin-a/worker-1", GroupLimits(), grow)
    assert status == 0
    above = tree.memory_above()
    with Tree(tree.files, {"memory": tree.roots["memory"] / "user-1" / "below"}) as below:
        tree.limit("user-1", GroupLimits(memory_bytes=64 << 20))
        assert below.memory_above() == min(64 << 20, above or 64 << 20)


def test_a_limit_above_holds_for_all_below_and_the_victims_group_counts(tree: Tree) -> None:
    needs(tree, "memory")
    tree.limit("user-1", GroupLimits(memory_bytes=32 << 20))

    def grow() -> int:
        return len(bytearray(128 << 20)) >> 40

    group, status = inside(
        tree, "user-1/origin-a/worker-1", GroupLimits(memory_bytes=1 << 30), grow
    )
    assert status == -signal.SIGKILL
    assert group.oom_kills() == 1
    assert group.memory_hit() == (1, 32 << 20)
    assert group.remove()
    # The level went with its last group, and its limit with it.
    _, status = inside(tree, "user-1/origin-b/worker-2", GroupLimits(), grow)
    assert status == 0
    tree.limit("", GroupLimits(memory_bytes=32 << 20))
    group, status = inside(tree, "user-1/origin-b/worker-3", GroupLimits(), grow)
    assert status == -signal.SIGKILL
    assert group.memory_hit() == (0, 32 << 20)


def test_memory_within_the_limit_is_left_alone(tree: Tree) -> None:
    needs(tree, "memory")

    def grow() -> int:
        return len(bytearray(16 << 20)) >> 40

    group, status = inside(
        tree, "user-1/origin-a/worker-1", GroupLimits(memory_bytes=64 << 20), grow
    )
    assert (status, group.oom_kills()) == (0, 0)


def test_a_thread_beyond_the_limit_is_refused(tree: Tree) -> None:
    needs(tree, "pids")

    def start_threads() -> int:
        stop = threading.Event()
        started = 0
        try:
            for _ in range(10):
                threading.Thread(target=stop.wait, daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        return started

    _, status = inside(tree, "user-1/origin-a/worker-1", GroupLimits(pids=4), start_threads)
    assert status == 3


def test_a_share_of_the_processor_is_throttled_by_the_kernels_count(tree: Tree) -> None:
    needs(tree, "cpu")

    def spin() -> int:
        import time

        while time.process_time() < 0.05:
            pass
        return 0

    group, status = inside(tree, "user-1/origin-a/worker-1", GroupLimits(cpu_percent=10), spin)
    assert status == 0
    # Five periods' worth, also beside others that leave it a fifth of a processor.
    assert group.throttled_periods() >= 2
    used = group.cpu_seconds()
    assert used is None or used >= 0.05


def test_without_a_share_nothing_is_throttled(tree: Tree) -> None:
    needs(tree, "cpu")
    group, _status = inside(
        tree, "user-1/origin-a/worker-1", GroupLimits(), lambda: sum(range(1000)) * 0
    )
    assert group.throttled_periods() == 0


def test_a_share_larger_than_the_levels_above_is_cut_to_theirs(tree: Tree) -> None:
    needs(tree, "cpu")
    tree.limit("user-1", GroupLimits(cpu_percent=10))

    def spin() -> int:
        import time

        while time.process_time() < 0.05:
            pass
        return 0

    _group, status = inside(tree, "user-1/origin-a/worker-1", GroupLimits(cpu_percent=150), spin)
    assert status == 0
    root = tree.roots["cpu"]
    throttled = (root / "user-1" / "cpu.stat").read_text().split()
    assert int(throttled[throttled.index("nr_throttled") + 1]) >= 1


def test_a_limit_that_the_kernel_refused_is_tried_again(tree: Tree) -> None:
    needs(tree, "pids")
    group = tree.create("refused", GroupLimits(pids=10))
    for _ in range(2):
        with pytest.raises(OSError, match="Invalid argument"):
            group.limit(GroupLimits(pids=-5))
    group.limit(GroupLimits(pids=11))
    assert group.remove()


def test_limits_can_be_changed_up_and_down(tree: Tree) -> None:
    needs(tree, "memory")
    group = tree.create("user-1/origin-a/worker-1", GroupLimits(memory_bytes=64 << 20))
    for size in (128 << 20, 32 << 20, 256 << 20):
        group.limit(GroupLimits(memory_bytes=size))
        name = "memory.limit_in_bytes" if tree.version == 1 else "memory.max"
        written = (tree.roots["memory"] / group.path / name).read_text()
        assert int(written) == size


def test_kill_ends_every_process_of_the_group(tree: Tree) -> None:
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        group.add(pid)
        children.append(pid)
    group.kill()
    statuses = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
    assert statuses == {-signal.SIGKILL}
    assert group.processes() == []


def test_a_busy_group_is_removed_later(tree: Tree) -> None:
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    directories = [root / group.path for root in tree.roots.values()]
    pid = os.fork()
    if pid == 0:
        signal.pause()
    group.add(pid)
    assert group.remove() is False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tree.create("user-2/origin-a/worker-2", GroupLimits())
    assert [path for path in directories if path.exists()] == []
    # The levels above went too, because nothing else was in them.
    assert not any((root / "user-1").exists() for root in tree.roots.values())


def test_a_group_made_anew_under_a_busy_ones_name_stays(tree: Tree) -> None:
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    pid = os.fork()
    if pid == 0:
        signal.pause()
    group.add(pid)
    assert group.remove() is False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    again = tree.create("user-1/origin-a/worker-1", GroupLimits())
    tree.create("user-2/origin-a/worker-2", GroupLimits())
    assert all((root / again.path).is_dir() for root in tree.roots.values())


def test_levels_with_other_groups_stay(tree: Tree) -> None:
    first = tree.create("user-1/origin-a/worker-1", GroupLimits())
    second = tree.create("user-1/origin-a/worker-2", GroupLimits())
    assert first.remove()
    assert all((root / second.path).is_dir() for root in tree.roots.values())


def test_only_controllers_that_are_held_are_claimed(tree: Tree) -> None:
    claimed = {layer for name, layer in cgroup.CONTROLLER_LAYERS.items() if tree.holds(name)}
    assert tree.layers == claimed
    assert claimed


def test_the_tree_of_a_broker_that_is_gone_is_swept_and_a_living_ones_is_not(tree: Tree) -> None:
    parents = {root.parent for root in tree.roots.values()}

    def leave_behind() -> str:
        left = cgroup.discover()
        assert left is not None
        left.create("user-1/origin-a/worker-1", GroupLimits())
        return cgroup.own_name()

    name = in_child(leave_behind).result()
    assert name != cgroup.own_name()
    # A broker of another test may begin just now, and be the one who sweeps.
    for parent in parents:
        cgroup.sweep_stale(parent)
    assert not any((parent / name).exists() for parent in parents)
    assert all(root.is_dir() for root in tree.roots.values())


def test_a_reused_process_id_does_not_keep_a_stale_tree(tree: Tree) -> None:
    parent = next(iter(tree.roots.values())).parent
    stale = parent / f"model-loader-{os.getpid()}-1"
    stale.mkdir()
    cgroup.sweep_stale(parent)
    assert not stale.exists()


def test_nothing_is_claimed_where_nothing_can_be_written(tmp_path: Path) -> None:
    assert cgroup.discover_version_1({}) is None
    assert cgroup.discover_version_1({"memory": tmp_path / "absent"}) is None
    assert cgroup.discover_version_2(tmp_path / "absent") is None


def test_a_process_that_has_ended_cannot_be_added(tree: Tree) -> None:
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        group.add(pid)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "origin-"),
        ("https://a.example:8443", "origin-https%3a%2f%2fa%2eexample%3a8443"),
        ("..", "origin-%2e%2e"),
        ("a/b", "origin-a%2fb"),
        ("a%2fb", "origin-a%252fb"),
        ("é", "origin-%c3%a9"),
        ("\0\n", "origin-%00%0a"),
    ],
)
def test_any_text_becomes_a_directory_name(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_long_names_stay_short_and_different() -> None:
    first, second = safe_name("x" * 1000 + "1"), safe_name("x" * 1000 + "2")
    assert first != second
    assert max(len(first), len(second)) < 255


def test_a_start_time_is_told_for_living_processes_only() -> None:
    mine = cgroup.start_time(os.getpid())
    assert mine is not None
    assert mine > 0
    assert cgroup.start_time(2**22 + 1) is None
