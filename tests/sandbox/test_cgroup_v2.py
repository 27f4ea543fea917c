"""Cgroup version 2: on the kernel's own files where this host has any, else on a model of them.

Where the controllers belong to version 1, as on a hybrid host, the unified hierarchy may still have
one that nothing else uses (hugetlb): enough to show the rules about leaves on the real kernel.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader_service.sandbox import cgroup, cgroup_mounts, cgroup_v2
from loader_service.sandbox.cgroup import GroupLimits, Tree
from loader_service.sandbox.layers import CGROUP_LAYERS
from tests.sandbox.sandboxed import in_child

CONTROLLERS = "cpuset cpu io memory pids"
FILES = {
    "memory": {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
    },
    "pids": {"pids.max": "max\n"},
    "cpu": {"cpu.max": "max 100000\n"},
}


class Kernel:
    """Makes the interface files of new cgroups, as the kernel does, in an ordinary directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mkdir = Path.mkdir
        self._rmdir = Path.rmdir
        root.mkdir()
        self.fill(root, CONTROLLERS)
        (root / "cgroup.type").write_text("domain\n")

    def fill(self, directory: Path, controllers: str) -> None:
        files = {
            "cgroup.procs": "",
            "cgroup.controllers": f"{controllers}\n",
            "cgroup.subtree_control": "",
            "cgroup.type": "domain\n",
            "cpu.stat": "usage_usec 1500000\nnr_periods 9\nnr_throttled 4\n",
        }
        for name in controllers.split():
            files |= FILES.get(name, {})
        for name, text in files.items():
            (directory / name).write_text(text)

    def mkdir(self, directory: Path, *arguments: object, **options: bool) -> None:
        if directory.is_dir() and options.get("exist_ok"):
            return
        self._mkdir(directory)
        enabled = (directory.parent / "cgroup.subtree_control").read_text()
        self.fill(directory, enabled.replace("+", ""))

    def rmdir(self, directory: Path) -> None:
        for file in directory.iterdir():
            if file.is_dir():
                raise OSError(16, "Device or resource busy")
        for file in directory.iterdir():
            file.unlink()
        self._rmdir(directory)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    model = Kernel(tmp_path / "own")
    monkeypatch.setattr(Path, "mkdir", lambda path, *a, **o: model.mkdir(path, *a, **o))
    monkeypatch.setattr(Path, "rmdir", lambda path: model.rmdir(path))
    return model


def test_no_limit_of_tasks_is_higher_than_the_kernel_takes(kernel: Kernel) -> None:
    tree = cgroup.discover_version_2(kernel.root)
    assert tree is not None
    tree.limit("user-1", GroupLimits(pids=2**53 - 1))
    tree.create("user-1/origin-a/worker-1", GroupLimits())
    assert (kernel.root / cgroup.own_name() / "user-1" / "pids.max").read_text() == "4194304"


def test_limits_are_written_at_each_level(kernel: Kernel) -> None:
    tree = cgroup.discover_version_2(kernel.root)
    assert tree is not None
    assert (tree.version, tree.layers) == (2, CGROUP_LAYERS)
    tree.limit("user-1", GroupLimits(memory_bytes=1 << 30, pids=100, cpu_percent=200))
    group = tree.create(
        "user-1/origin-a/worker-1", GroupLimits(memory_bytes=1 << 20, pids=9, cpu_percent=50)
    )
    root = kernel.root / cgroup.own_name()

    def values(level: Path) -> list[str]:
        names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
        return [(level / name).read_text().strip() for name in names]

    assert values(root / "user-1") == [str(1 << 30), "0", "100", "200000 100000"]
    assert values(root / "user-1" / "origin-a") == ["max", "max", "max", "max 100000"]
    assert values(root / group.path) == [str(1 << 20), "0", "9", "50000 100000"]
    for level in (kernel.root, root, root / "user-1", root / "user-1" / "origin-a"):
        assert (level / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    # A group with a process may not have children.
    assert (root / group.path / "cgroup.subtree_control").read_text() == ""


def test_a_level_says_what_it_uses_and_the_tree_what_it_may(kernel: Kernel) -> None:
    tree = cgroup.discover_version_2(kernel.root)
    assert tree is not None
    tree.create("user-1/origin-a/worker-1", GroupLimits())
    assert tree.memory_usage("user-1/origin-a") == tree.memory_usage("") == 4096
    assert tree.memory_usage("user-2") == 0
    assert tree.memory_above() is None
    # The tightest of the group that the service is in and those above it.
    (kernel.root / "memory.max").write_text("9000\n")
    (kernel.root.parent / "memory.max").write_text("5000\n")
    assert tree.memory_above() == 5000
    (kernel.root.parent / "memory.max").write_text("max\n")
    assert tree.memory_above() == 9000


def test_counters_are_read(kernel: Kernel) -> None:
    tree = cgroup.discover_version_2(kernel.root)
    assert tree is not None
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    assert group.memory_usage() == 4096
    assert group.memory_peak() == 8192
    assert group.oom_kills() == 1
    # Where nothing is known of a level above, it was the group's own limit.
    assert group.memory_hit() == (3, None)
    events = tree.roots["memory"] / "user-1" / "memory.events.local"
    events.write_text("max 7\noom 1\noom_kill 0\n")
    assert group.memory_hit() == (1, None)
    assert group.cpu_seconds() == 1.5
    assert group.throttled_periods() == 4
    (tree.roots["memory"] / group.path / "memory.peak").unlink()
    assert group.memory_peak() is None


def test_this_process_moves_into_a_leaf_first(kernel: Kernel) -> None:
    (kernel.root / "cgroup.procs").write_text(f"{os.getpid()}\n")
    assert cgroup.discover_version_2(kernel.root) is not None
    leaf = kernel.root / "model-loader-broker"
    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    assert (leaf / "cgroup.subtree_control").read_text() == ""


def test_a_cgroup_with_others_in_it_is_left_alone(kernel: Kernel) -> None:
    (kernel.root / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n")
    assert cgroup.discover_version_2(kernel.root) is None
    assert (kernel.root / "cgroup.subtree_control").read_text() == ""


def test_a_broker_started_from_anothers_leaf_goes_beside_it(kernel: Kernel) -> None:
    leaf = kernel.root / "model-loader-broker"
    leaf.mkdir()
    tree = cgroup.discover_version_2(leaf)
    assert tree is not None
    assert set(tree.roots.values()) == {kernel.root / cgroup.own_name()}


def test_only_the_controllers_at_hand_are_claimed(kernel: Kernel) -> None:
    (kernel.root / "cgroup.controllers").write_text("memory pids\n")
    tree = cgroup.discover_version_2(kernel.root)
    assert tree is not None
    assert (tree.holds("memory"), tree.holds("pids"), tree.holds("cpu")) == (True, True, False)
    group = tree.create("user-1/origin-a/worker-1", GroupLimits(cpu_percent=10))
    assert group.cpu_seconds() is None


def test_none_at_hand_is_no_tree(kernel: Kernel) -> None:
    (kernel.root / "cgroup.controllers").write_text("hugetlb\n")
    assert cgroup.discover_version_2(kernel.root) is None


# --- The kernel's own -----------------------------------------------------------------------------


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup of this test in the real unified hierarchy, in which nothing runs yet."""
    own = cgroup_mounts.own_cgroups().version_2
    if own is None:
        pytest.skip("this host has no cgroup version 2")
    if "hugetlb" not in cgroup_v2.available(own):
        pytest.skip("no controller is free in the unified hierarchy of this host")
    directory = own / f"sandbox-test-{os.getpid()}"
    control = own / "cgroup.subtree_control"
    was_open = "hugetlb" in control.read_text().split()
    try:
        cgroup_v2.open_to_children(own, ["hugetlb"])
        directory.mkdir()
    except OSError:
        pytest.skip("the unified hierarchy of this host cannot be written to")
    yield directory
    for child in [*directory.glob("*/*/*/"), *directory.glob("*/*/"), *directory.glob("*/")]:
        if child.is_dir():
            child.rmdir()
    directory.rmdir()
    if not was_open:
        control.write_text("-hugetlb")


def test_the_real_kernel_takes_the_steps(delegated: Path) -> None:
    """A broker in a delegated cgroup makes its leaf, its tree and a worker's group, and kills."""

    def broker() -> list[object]:
        (delegated / "cgroup.procs").write_text(str(os.getpid()))
        tree = cgroup.discover_version_2(delegated, frozenset({"hugetlb"}))
        assert tree is not None
        group = tree.create("user-1/origin-a/worker-1", GroupLimits())
        pids = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            group.add(pid)
            pids.append(pid)
        leaf = (delegated / "model-loader-broker" / "cgroup.procs").read_text().split()
        inside = group.processes() == pids
        group.kill()
        killed = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids}
        return [
            leaf == [str(os.getpid())],
            inside,
            sorted(killed),
            group.remove(),
            tree.remove(),
            (delegated / "cgroup.subtree_control").read_text().split(),
        ]

    seen = in_child(broker).result()
    assert seen == [True, True, [-signal.SIGKILL], True, True, ["hugetlb"]]


def test_the_real_kernel_refuses_children_beside_processes(delegated: Path) -> None:
    """Why the leaf is needed, and why a stranger in the cgroup means no tree."""
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
    (delegated / "cgroup.procs").write_text(str(stranger))

    def broker() -> object:
        (delegated / "cgroup.procs").write_text(str(os.getpid()))
        tree = cgroup.discover_version_2(delegated, frozenset({"hugetlb"}))
        try:
            cgroup_v2.open_to_children(delegated, ["hugetlb"])
        except OSError as error:
            return [tree is None, error.strerror]
        return "children are allowed"

    try:
        assert in_child(broker).result() == [True, "Device or resource busy"]
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_a_tree_is_removed_with_what_runs_in_it(delegated: Path) -> None:
    root = delegated / "tree"
    root.mkdir()
    tree = Tree(cgroup_v2, {})
    assert tree.remove()
    tree = Tree(cgroup_v2, {"hugetlb": root})
    cgroup_v2.open_to_children(delegated, ["hugetlb"])
    group = tree.create("user-1/origin-a/worker-1", GroupLimits())
    pid = os.fork()
    if pid == 0:
        signal.pause()
    group.add(pid)
    assert tree.remove()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not root.exists()
