"""Who may open a file: its owner, the one who was let in, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loader_service.broker.access_list import let_in
from loader_service.broker.directory import Directory

GUEST, STRANGER = 61301, 61302
AS_ANOTHER = """
import os, sys
uid = int(sys.argv[1])
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Not by ``subprocess.run(user=...)``: that forks, and gRPC's threads may abort in the fork."""


def can(uid: int, command: str, path: Path) -> bool:
    """Whether another user can do this with the file."""
    words = [sys.executable, "-I", "-S", "-c", AS_ANOTHER, str(uid), command, str(path)]
    done = subprocess.run(words, check=False)
    assert done.returncode >= 0, done
    return done.returncode == 0


def test_one_user_is_let_in_and_no_other(short_folder: Path) -> None:
    short_folder.chmod(0o755)
    folder = short_folder / "room"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("x")
    (folder / "file").chmod(0o600)
    let_in(folder, GUEST, 5)
    let_in(folder / "file", GUEST, 4)
    assert folder.stat().st_mode & 0o777 == 0o750  # the mask stands where the group's rights do
    assert folder.stat().st_uid == os.geteuid()
    if os.geteuid() != 0:
        pytest.skip("only root can try it as other users")
    assert can(GUEST, "/bin/cat", folder / "file")
    assert can(GUEST, "/bin/ls", folder)
    assert not can(GUEST, "/usr/bin/touch", folder / "new")
    assert not can(STRANGER, "/bin/cat", folder / "file")
    assert not can(STRANGER, "/bin/ls", folder)


def test_a_service_that_is_not_roots_keeps_its_rooms_and_lets_their_users_in(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Directory(short_folder / "service", shared=True)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid or 1)
    directory.make_room(GUEST)
    socket = directory.room_path(GUEST) / "grpc.sock"
    socket.touch(mode=0o600)
    directory.give_room(GUEST, "grpc.sock")
    monkeypatch.undo()
    assert (socket.stat().st_uid, socket.parent.stat().st_uid) == (uid, uid)
    assert socket.stat().st_mode & 0o777 == 0o760
    directory.remove()
    assert not directory.path.exists()
