"""A broker's directory: one broker each, closed to others, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from loader_service.broker.directory import (
    EMBEDDED_PREFIX,
    LOCK,
    Directory,
    DirectoryTaken,
    private_directory,
    sweep,
)


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_second_broker_is_refused_and_the_first_undisturbed(short_folder: Path) -> None:
    path = short_folder / "service"
    first = Directory(path, shared=False)
    (path / "attach.sock").touch()
    with pytest.raises(DirectoryTaken, match="another service runs in"):
        Directory(path, shared=False)
    assert (path / "attach.sock").exists()
    first.remove()
    assert not path.exists()


def test_what_a_dead_broker_left_is_removed(short_folder: Path) -> None:
    path = short_folder / "service"
    (path / "uid-5").mkdir(parents=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path / "uid-5" / "grpc.sock"))
    stale.close()
    (path / LOCK).touch()
    (path / "uid-6").symlink_to(short_folder)
    directory = Directory(path, shared=False)
    assert [entry.name for entry in path.iterdir()] == [LOCK]
    directory.remove()
    assert short_folder.exists()


def test_a_directory_with_other_things_in_it_is_left_alone(short_folder: Path) -> None:
    (short_folder / "thesis.txt").write_text("ten years")
    with pytest.raises(DirectoryTaken, match=r"holds thesis\.txt"):
        Directory(short_folder, shared=False)
    assert [entry.name for entry in short_folder.iterdir()] == ["thesis.txt"]


def test_the_lock_of_a_removed_directory_is_worth_nothing(short_folder: Path) -> None:
    path = short_folder / "service"
    first = Directory(path, shared=False)
    late = os.open(path / LOCK, os.O_RDWR)
    first.remove()
    second = Directory(path, shared=False)
    # Who opened the old file before it was removed gets that one's lock, and no directory.
    fcntl.flock(late, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(late)
    with pytest.raises(DirectoryTaken):
        Directory(path, shared=False)
    second.remove()


def test_removing_spares_who_moved_in(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = short_folder / "service"
    first = Directory(path, shared=False)
    unlink = Path.unlink
    following: list[Directory] = []

    def unlink_and_move_in(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if self == path / LOCK and not following:
            following.append(Directory(path, shared=False))

    monkeypatch.setattr(Path, "unlink", unlink_and_move_in)
    first.remove()
    assert (path / LOCK).exists()
    with pytest.raises(DirectoryTaken):
        Directory(path, shared=False)
    following[0].remove()
    assert not path.exists()


def test_modes(short_folder: Path) -> None:
    private = Directory(short_folder / "private", shared=False)
    shared = Directory(short_folder / "shared", shared=True)
    assert mode(private.path) == 0o700
    assert mode(shared.path) == 0o755
    assert mode(shared.path / LOCK) == 0o600
    shared.make_room(os.geteuid())
    room = shared.room_path(os.geteuid())
    assert (mode(room), room.stat().st_uid) == (0o700, os.geteuid())
    private.remove()
    shared.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a socket away")
def test_a_user_gets_the_socket_and_no_place_to_write_to(short_folder: Path) -> None:
    target = short_folder / "target"
    target.touch()
    directory = Directory(short_folder / "service", shared=True)
    directory.make_room(54321)
    room = directory.room_path(54321)
    assert (mode(room), room.stat().st_uid) == (0o700, 0)
    (room / "grpc.sock").symlink_to(target)
    directory.give_room(54321, "grpc.sock")
    assert (mode(room), room.stat().st_uid) == (0o711, 0)
    assert (room / "grpc.sock").lstat().st_uid == 54321
    assert target.stat().st_uid == 0
    directory.remove()


def test_a_place_that_is_no_directory_of_ours_is_refused(short_folder: Path) -> None:
    (short_folder / "real").mkdir()
    (short_folder / "link").symlink_to(short_folder / "real")
    with pytest.raises(DirectoryTaken, match="no directory of this user"):
        Directory(short_folder / "link", shared=False)
    if os.geteuid() == 0:
        os.chown(short_folder / "real", 54321, -1)
        with pytest.raises(DirectoryTaken, match="no directory of this user"):
            Directory(short_folder / "real", shared=False)


def test_a_path_too_long_for_a_socket_is_refused_before_it_is_made(short_folder: Path) -> None:
    path = short_folder / ("x" * 100)
    with pytest.raises(OSError, match="no room for a socket"):
        Directory(path, shared=False)
    assert not path.exists()


def test_sweeping_takes_the_dead_and_spares_the_living(runtime_folder: Path) -> None:
    living = private_directory()
    parent = living.path.parent
    dead = parent / f"{EMBEDDED_PREFIX}dead"
    dead.mkdir(mode=0o700)
    (dead / LOCK).touch()
    (dead / "attach.sock").touch()
    other = parent / f"{EMBEDDED_PREFIX}thesis"
    other.mkdir()
    (other / "attach.sock").touch()
    (parent / f"{EMBEDDED_PREFIX}link").symlink_to(living.path)
    sweep(parent)
    left = {path.name.removeprefix(EMBEDDED_PREFIX) for path in parent.iterdir()}
    assert left == {living.path.name.removeprefix(EMBEDDED_PREFIX), "thesis", "link"}
    assert (other / "attach.sock").exists()
    living.remove()


def test_a_private_directory_that_is_swept_while_it_is_made_is_made_again(
    runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    swept: list[Path] = []

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent)
            sweep(swept[0].parent)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    directory = private_directory()
    assert directory.path != swept[0]
    assert not swept[0].exists()
    directory.remove()
