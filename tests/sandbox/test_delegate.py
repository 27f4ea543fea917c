"""Asking systemd for a scope, with a stand-in for busctl that does what the manager would do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loader_service.sandbox import cgroup, delegate
from tests.sandbox.sandboxed import in_child

WITHOUT_MOVING = '#!/bin/sh\nprintf "%s\\n" "$@" > "$CALLED"\n'
REFUSING = '#!/bin/sh\nprintf "%s\\n" "$@" > "$CALLED"\nexit 1\n'


@pytest.fixture
def busctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a stand-in to write; a user's bus seems to be there."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CALLED", str(tmp_path / "called"))
    monkeypatch.setattr(delegate, "_manager", lambda: "--user")
    return tmp_path / "busctl"


def write(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_the_scope_is_asked_for_this_process_with_delegation(
    busctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(busctl, WITHOUT_MOVING)
    monkeypatch.setattr(delegate, "_MOVE_SECONDS", 0.0)
    assert delegate.move_to_own_scope() is False  # it was accepted, but the process did not move
    called = (busctl.parent / "called").read_text().split("\n")
    assert called[0] == "--user"
    assert called[called.index("StartTransientUnit") + 1] == "ssa(sv)a(sa(sv))"
    pids = called.index("PIDs")
    assert called[pids : pids + 4] == ["PIDs", "au", "1", str(os.getpid())]
    assert called[pids + 4 : pids + 7] == ["Delegate", "b", "true"]
    # Three properties, then no auxiliary unit.
    name = called.index(f"model-loader-{os.getpid()}.scope")
    assert called[name + 1 : name + 3] == ["fail", "3"]
    assert called[pids + 7 :] == ["0", ""]


def test_a_move_is_waited_for(busctl: Path) -> None:
    tree = cgroup.discover()
    if tree is None or not tree.holds("pids"):
        pytest.skip("no pids cgroup of this host can be written to")
    with tree:
        target = tree.roots["pids"] / "scope"
        target.mkdir()
        # The manager answers first and moves the process a moment later.
        write(busctl, f"#!/bin/sh\n(sleep 0.1; echo $PPID > {target}/cgroup.procs) &\n")

        def work() -> list[bool]:
            before = Path("/proc/self/cgroup").read_text()
            return [delegate.move_to_own_scope(), before != Path("/proc/self/cgroup").read_text()]

        assert in_child(work).result() == [True, True]


def test_a_refusal_is_the_answer_no(busctl: Path) -> None:
    write(busctl, REFUSING)
    assert delegate.move_to_own_scope() is False
    assert (busctl.parent / "called").exists()


def test_a_manager_that_does_not_answer_is_given_up(
    busctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(busctl, "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(delegate, "_ANSWER_SECONDS", -0.9)
    assert delegate.move_to_own_scope() is False


def test_without_busctl_or_a_bus_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(delegate, "_manager", lambda: "--user")
    assert delegate.move_to_own_scope() is False


def test_the_manager_is_the_users_or_for_root_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert delegate._manager() is None
    (tmp_path / "bus").touch()
    assert delegate._manager() == "--user"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    booted = Path("/run/systemd/system").is_dir()
    assert delegate._manager() == ("--system" if booted else None)
