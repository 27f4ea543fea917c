"""Finding one's own cgroup in what /proc says, on hosts and in containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from loader_service.sandbox import cgroup_mounts
from loader_service.sandbox.cgroup_mounts import OwnCgroups, parse

V2_MOUNT = "30 23 0:26 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "31 23 0:27 {root} {at} rw - cgroup cgroup rw,{controllers}"


def test_a_service_in_the_unified_hierarchy() -> None:
    own = parse(
        "0::/system.slice/model-loader.service\n", V2_MOUNT.format(root="/", at="/sys/fs/cgroup")
    )
    assert own == OwnCgroups({}, Path("/sys/fs/cgroup/system.slice/model-loader.service"))


def test_the_root_of_a_private_cgroup_namespace() -> None:
    own = parse("0::/\n", V2_MOUNT.format(root="/", at="/sys/fs/cgroup"))
    assert own.version_2 == Path("/sys/fs/cgroup")


def test_a_container_with_the_hosts_namespace_sees_its_part_mounted() -> None:
    cgroup = "0::/docker/abc/inner\n"
    own = parse(cgroup, V2_MOUNT.format(root="/docker/abc", at="/sys/fs/cgroup"))
    assert own.version_2 == Path("/sys/fs/cgroup/inner")


@pytest.mark.parametrize("root", ["/docker/other", "/docker/ab"])
def test_a_cgroup_that_is_not_mounted_is_not_found(root: str) -> None:
    own = parse("0::/docker/abc\n", V2_MOUNT.format(root=root, at="/sys/fs/cgroup"))
    assert own.version_2 is None


def test_a_cgroup_outside_of_the_namespace_is_not_found() -> None:
    own = parse("0::/../outside\n", V2_MOUNT.format(root="/", at="/sys/fs/cgroup"))
    assert own.version_2 is None


def test_controllers_of_version_1_may_share_a_hierarchy() -> None:
    mounts = "\n".join(
        [
            V1_MOUNT.format(root="/", at="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct"),
            V1_MOUNT.format(root="/", at="/sys/fs/cgroup/memory", controllers="memory"),
            V2_MOUNT.format(root="/", at="/sys/fs/cgroup/unified"),
        ]
    )
    own = parse("5:memory:/a\n4:cpu,cpuacct:/b\n1:name=systemd:/c\n0::/d\n", mounts)
    assert own.version_1 == {
        "memory": Path("/sys/fs/cgroup/memory/a"),
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct/b"),
        "cpuacct": Path("/sys/fs/cgroup/cpu,cpuacct/b"),
    }
    assert own.version_2 == Path("/sys/fs/cgroup/unified/d")


def test_spaces_in_a_mount_point_are_unescaped() -> None:
    own = parse("0::/a\n", V2_MOUNT.format(root="/", at=r"/mnt/my\040cgroups"))
    assert own.version_2 == Path("/mnt/my cgroups/a")


def test_what_is_found_on_this_host_holds_this_process() -> None:
    import os

    own = cgroup_mounts.own_cgroups()
    found = [*own.version_1.values(), *([own.version_2] if own.version_2 else [])]
    for directory in found:
        assert str(os.getpid()) in (directory / "cgroup.procs").read_text().split()
