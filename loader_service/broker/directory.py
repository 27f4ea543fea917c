"""The directory of a broker's sockets: private, locked while the broker lives, swept after it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from loader_service.broker.access_list import let_in

LOCK = "lock"
ATTACH = "attach.sock"
ADMIN = "admin.sock"
METRICS = "metrics.sock"
STEERING = "steering"
"""A folder for the gRPC sockets behind the admin socket."""
EMBEDDED_PREFIX = "model-loader-"
READ, WRITE, ENTER = 4, 2, 1
SOCKET_PATH_LENGTH = 107
"""Longest path of a Unix socket in bytes (sun_path without its final zero)."""
LONGEST_BELOW = len("/uid-4294967295/grpc.sock")


class DirectoryTaken(Exception):
    """Another broker lives in this directory."""


class Directory:
    """A broker's directory; holding the lock is being the broker of it."""

    def __init__(self, path: Path, *, shared: bool) -> None:
        """Take the directory, made if it is not there; raises DirectoryTaken or OSError.

        A `shared` one may be entered by other users, whose own rooms in it are closed to all but
        them. What a dead broker left in it is removed.
        """
        if not _short_enough(path):
            raise OSError(
                errno.ENAMETOOLONG, "the path leaves no room for a socket's name", str(path)
            )
        path.mkdir(mode=0o755 if shared else 0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DirectoryTaken(f"{path} is no directory of this user")
        for entry in path.iterdir():
            if not _is_ours(entry.name):
                raise DirectoryTaken(
                    f"{path} holds {entry.name}, which is no service's: a service needs a "
                    "directory of its own"
                )
        path.chmod(0o755 if shared else 0o700)
        self.path = path
        lock = _lock(path)
        if lock is None:
            raise DirectoryTaken(f"another service runs in {path}")
        self._lock = lock
        _empty(path)

    @property
    def attach_path(self) -> str:
        """Where clients attach."""
        return str(self.path / ATTACH)

    @property
    def admin_path(self) -> str:
        """Where administrators connect."""
        return str(self.path / ADMIN)

    @property
    def metrics_path(self) -> str:
        """Where the metrics are read."""
        return str(self.path / METRICS)

    def steering_path(self, uid: int) -> str:
        """Where the gRPC socket behind the admin socket is, for one user; made for this broker."""
        folder = self.path / STEERING
        folder.mkdir(mode=0o700, exist_ok=True)
        return str(folder / f"{uid}.sock")

    def room_path(self, uid: int) -> Path:
        """Where the room of one principal is."""
        return self.path / f"uid-{uid}"

    def make_room(self, uid: int) -> None:
        """Make the room of one principal, still closed to everybody but this broker."""
        self.room_path(uid).mkdir(mode=0o700, exist_ok=True)

    def give_room(self, uid: int, socket_name: str) -> None:
        """Let the principal, and nobody else, use the socket in its room.

        Root gives the socket away, and keeps the room: who owned that could fill up the file system
        that it is in, which is the machine's /run. Another user's service keeps both, and lets the
        principal in.
        """
        room = self.room_path(uid)
        if uid != os.geteuid() and os.geteuid() != 0:
            let_in(room / socket_name, uid, WRITE | READ)
            let_in(room, uid, READ | ENTER)
        elif uid != os.geteuid():
            # Whoever may not write to the socket cannot connect to it.
            os.chown(room / socket_name, uid, -1, follow_symlinks=False)
            room.chmod(0o711)

    def remove(self) -> None:
        """Leave nothing behind; the lock goes last, so that nobody moves in meanwhile."""
        _empty(self.path)
        _remove_locked(self.path)
        os.close(self._lock)


def private_directory() -> Directory:
    """Make a directory for an embedded broker, after removing those of dead ones."""
    parent = _runtime_directory()
    sweep(parent)
    while True:
        made = Path(tempfile.mkdtemp(prefix=EMBEDDED_PREFIX, dir=parent))
        try:
            return Directory(made, shared=False)
        except DirectoryTaken:
            # Another broker's sweep came between making the directory and locking it.
            continue


def sweep(parent: Path) -> None:
    """Remove directories that a dead embedded broker of this user left behind.

    A directory without a broker's lock is somebody else's, whatever its name.
    """
    for path in parent.glob(f"{EMBEDDED_PREFIX}*"):
        try:
            status = path.lstat()
            if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
                continue
            lock = _lock(path, make=False)
        except OSError:
            continue
        if lock is not None:
            _empty(path)
            _remove_locked(path)
            os.close(lock)


def _runtime_directory() -> Path:
    """Return the first writable place whose path is short enough for sockets below it."""
    places = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]
    for place in places:
        if place and os.access(place, os.W_OK | os.X_OK):
            path = Path(place)
            if _short_enough(path / f"{EMBEDDED_PREFIX}12345678"):
                return path
    return Path(tempfile.gettempdir())


def _short_enough(path: Path) -> bool:
    return len(os.fsencode(path.absolute())) + LONGEST_BELOW <= SOCKET_PATH_LENGTH


def _lock(path: Path, *, make: bool = True) -> int | None:
    """Lock a directory; None if somebody else holds it, or has just removed it.

    Raises OSError, also where there is no lock and none is to be made.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    lock = os.open(path / LOCK, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been removed, by who held it, after it was opened here.
        if os.path.samestat(os.fstat(lock), os.stat(path / LOCK, follow_symlinks=False)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _remove_locked(path: Path) -> None:
    (path / LOCK).unlink(missing_ok=True)
    try:
        path.rmdir()
    except OSError:
        # The next broker has moved in already.
        return


def _is_ours(name: str) -> bool:
    fixed = (LOCK, ATTACH, ADMIN, METRICS, STEERING)
    return name in fixed or re.fullmatch(r"uid-\d+", name) is not None


def _empty(path: Path) -> None:
    """Remove what a broker makes in its directory, but for the lock; never anything else."""
    for entry in path.iterdir():
        if entry.name == LOCK or not _is_ours(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
