"""The directory of a broker's sockets: private, locked while the broker lives, swept after it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

LOCK = "lock"
ATTACH = "attach.sock"
EMBEDDED_PREFIX = "model-loader-"


class DirectoryTaken(Exception):
    """Another broker lives in this directory."""


class Directory:
    """A broker's directory; holding the lock is being the broker of it."""

    def __init__(self, path: Path, *, shared: bool) -> None:
        """Take the directory, made if it is not there; raises DirectoryTaken.

        A `shared` one may be entered by other users, whose own rooms in it are closed to all but
        them. What a dead broker left in it is removed.
        """
        path.mkdir(mode=0o755 if shared else 0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DirectoryTaken(f"{path} is no directory of this user")
        path.chmod(0o755 if shared else 0o700)
        self.path = path
        self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DirectoryTaken(f"another service runs in {path}") from None
        for entry in path.iterdir():
            if entry.name != LOCK:
                _remove(entry)

    @property
    def attach_path(self) -> str:
        """Where clients attach."""
        return str(self.path / ATTACH)

    def room(self, uid: int) -> Path:
        """Make the room of one principal, which nobody else can enter."""
        room = self.path / f"uid-{uid}"
        room.mkdir(mode=0o700, exist_ok=True)
        if uid != os.geteuid():
            os.chown(room, uid, -1)
        return room

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def private_directory() -> Directory:
    """Make a directory for an embedded broker, after removing those of dead ones."""
    parent = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not os.access(parent, os.W_OK):
        parent = Path(tempfile.gettempdir())
    sweep(parent)
    while True:
        try:
            made = tempfile.mkdtemp(prefix=EMBEDDED_PREFIX, dir=parent)
            return Directory(Path(made), shared=False)
        except DirectoryTaken:
            # Another broker's sweep came between making the directory and locking it.
            continue


def sweep(parent: Path) -> None:
    """Remove directories that a dead embedded broker of this user left behind."""
    for path in parent.glob(f"{EMBEDDED_PREFIX}*"):
        try:
            if path.lstat().st_uid != os.geteuid() or path.is_symlink():
                continue
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
