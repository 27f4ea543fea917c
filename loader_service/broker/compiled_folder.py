"""Compiled partitions in a folder of the daemon's own, which outlive it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from pathlib import Path

log = logging.getLogger("model_loader.devices")

SECRET = "secret"
SECRET_BYTES = 32
_ENTRY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{64}")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class CompiledFolder:
    """A folder that nobody else can enter, with a file for each entry and the broker's secret."""

    def __init__(self, path: Path) -> None:
        """Make the folder, or take it over; raises OSError if it is not the service's alone."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            facts = os.fstat(self._folder)
            if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
                raise PermissionError(f"{path} must belong to the service alone (mode 0700)")
            self.secret = self._own_secret()
        except BaseException:
            os.close(self._folder)
            raise

    def close(self) -> None:
        """Let go of the folder; it stays."""
        os.close(self._folder)

    def names(self) -> list[tuple[str, int]]:
        """Return the entries, what was written longest ago first; remove what is half written."""
        found = []
        for name in os.listdir(self._folder):
            try:
                facts = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(facts.st_mode) and _ENTRY.fullmatch(name):
                found.append((facts.st_mtime_ns, name, facts.st_size))
            elif name.endswith(".new"):
                self.remove(name)
        return [(name, size) for _, name, size in sorted(found)]

    def read(self, name: str, longest: int) -> bytes | None:
        """Return an entry of at most so many bytes; None if it cannot be read."""
        try:
            return self._read(name, longest)
        except OSError:
            return None

    def _read(self, name: str, longest: int) -> bytes | None:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=self._folder)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > longest:
                return None
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(longest + 1)
            os.utime(descriptor)  # the next service takes what was used longest ago away first
        finally:
            os.close(descriptor)
        return data if len(data) <= longest else None

    def write(self, name: str, sealed: bytes) -> bool:
        """Write an entry whole or not at all; a full disk is logged only."""
        new = f"{name}.new"
        try:
            descriptor = os.open(
                new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600, dir_fd=self._folder
            )
            with open(descriptor, "wb") as file:
                file.write(sealed)
            os.rename(new, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError as error:
            log.warning("a compiled partition cannot be kept: %s", error)
            self.remove(new)
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove an entry, if it is there."""
        try:
            os.unlink(name, dir_fd=self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("a compiled partition cannot be removed: %s", error)

    def _own_secret(self) -> bytes:
        """Read the secret, or make one; another secret makes all entries worthless."""
        secret = self.read(SECRET, SECRET_BYTES)
        if secret is not None and len(secret) == SECRET_BYTES:
            return secret
        secret = secrets.token_bytes(SECRET_BYTES)
        if not self.write(SECRET, secret):
            raise OSError("the folder of compiled partitions cannot be written to")
        return secret
