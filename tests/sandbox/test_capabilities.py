"""Every capability is gone, in every set, and cannot come back."""

from __future__ import annotations

import os

import pytest

from loader_service.sandbox import capabilities, credentials, libc, namespaces
from tests.sandbox.sandboxed import become_ordinary, in_child
from tests.support.host import user_namespaces_usable

pytestmark = pytest.mark.isolation
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root holds capabilities to drop")


def test_every_set_is_empty_afterwards() -> None:
    def work() -> list[object]:
        capabilities.drop_all()
        pr_cap_ambient, pr_cap_ambient_is_set = 47, 1
        ambient = [libc.prctl(pr_cap_ambient, pr_cap_ambient_is_set, n) for n in range(38)]
        return [list(capabilities.held()), sum(ambient)]

    assert in_child(work).result() == [[0, 0, 0], 0]


@as_root
def test_root_loses_its_bounding_set_and_its_power_over_files() -> None:
    def work() -> list[object]:
        before = capabilities.bounding_set()
        capabilities.drop_all()
        refused = []
        for act in (
            lambda: os.setuid(12345),
            lambda: os.chroot("/"),
            lambda: libc.prctl(24, 0),  # PR_CAPBSET_DROP needs CAP_SETPCAP
        ):
            try:
                act()
            except PermissionError:
                refused.append(True)
        return [before != 0, capabilities.bounding_set(), len(refused)]

    assert in_child(work).result() == [True, 0, 3]


@as_root
def test_a_program_run_by_root_gets_no_capability_back() -> None:
    def work() -> str:
        capabilities.drop_all()
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        if os.fork() == 0:
            os.dup2(writing, 1)
            os.execv("/bin/sh", ["sh", "-c", "grep -E '^Cap(Prm|Eff)' /proc/self/status"])
        os.wait()
        return os.read(reading, 999).decode()

    lines = in_child(work).result().split()
    assert lines == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16]


@pytest.mark.skipif(not user_namespaces_usable(), reason="this host refuses user namespaces")
def test_the_rights_inside_a_user_namespace_are_dropped_too() -> None:
    def work() -> list[object]:
        become_ordinary()
        namespaces.enter_user_namespace()
        before = capabilities.held()[0] != 0
        capabilities.drop_all()
        return [before, list(capabilities.held()), capabilities.bounding_set()]

    assert in_child(work).result() == [True, [0, 0, 0], 0]


@as_root
def test_rights_can_be_kept_over_a_change_of_user_until_they_are_dropped() -> None:
    def work() -> list[bool]:
        capabilities.keep_over_user_change(True)
        credentials.change_user(61_101)
        effective, permitted, _ = capabilities.held()
        capabilities.raise_permitted()
        raised = capabilities.held()[0]
        capabilities.drop_all()
        return [effective == 0, permitted != 0, raised == permitted, any(capabilities.held())]

    assert in_child(work).result() == [True, True, True, False]
