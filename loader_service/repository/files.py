"""What is in the folder: names, versions, and each version's files.

A version is a folder whose name is its number. In it are ``model.tflite``; its pin, a file
``model.tflite.sha256`` as ``sha256sum`` writes it; and, if the operator likes, ``warm-up.npz`` with
inputs to try it on. A name that begins with a dot is not looked at: a version is prepared under one
and appears by being renamed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MODEL, PIN, WARM_UP = "model.tflite", "model.tflite.sha256", "warm-up.npz"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NUMBER = re.compile(r"[1-9][0-9]{0,17}")
DIGEST = re.compile(rb"\s*([0-9a-fA-F]{64})(\s|$)")
PIN_BYTES = 4096
WARM_UP_BYTES = 256 << 20
"""Most bytes of the inputs of one model."""
PIECE = 1 << 20
FOLDERS = ("its folder", "the folder of its name", "the repository")
"""What is above a version's file: who can rename there decides which file it is."""


class Unfit(Exception):
    """A version cannot be served; says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A version that is there, whatever is in it."""

    name: str
    number: int
    folder: Path
    stamp: tuple[tuple[int, ...], ...]
    """What differs when one of its files was changed."""


def is_name(name: str) -> bool:
    """Whether a model can be called so."""
    return NAME.fullmatch(name) is not None


def find_versions(folder: Path) -> list[Found]:
    """List all versions, by name and number; raises OSError for a folder that cannot be read."""
    found = []
    for model in sorted(folder.iterdir()):
        if not is_name(model.name) or not model.is_dir():
            continue
        for version in model.iterdir():
            if NUMBER.fullmatch(version.name) and version.is_dir():
                found.append(Found(model.name, int(version.name), version, _stamp(version)))
    return sorted(found, key=lambda version: (version.name, version.number))


def read_pin(version: Found) -> bytes:
    """Return the digest that the operator approved; raises Unfit."""
    content = _read(version.folder / PIN, PIN_BYTES)
    digest = DIGEST.match(content)
    if digest is None:
        raise Unfit(f"{PIN} does not begin with a SHA-256")
    return bytes.fromhex(digest[1].decode())


def read_model(version: Found, most: int, take: Callable[[memoryview], None]) -> bytes:
    """Give a model's bytes to `take`, piece by piece; returns their SHA-256. Raises Unfit."""
    digest = hashlib.sha256()
    with _open(version.folder / MODEL, most) as file:
        left = most
        while piece := file.read(min(PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise Unfit(f"{MODEL} has more than {most} bytes")
            digest.update(piece)
            take(memoryview(piece))
    return digest.digest()


def read_warm_up(version: Found) -> bytes | None:
    """Return the archive of inputs, or None if there is none; raises Unfit."""
    path = version.folder / WARM_UP
    return _read(path, WARM_UP_BYTES) if path.exists() else None


def _read(path: Path, most: int) -> bytes:
    with _open(path, most) as file:
        return file.read(most)


def _open(path: Path, most: int) -> io.BufferedReader:
    """Open a file that only the operator can have written; raises Unfit."""
    try:
        file = open(path, "rb", opener=_opened)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise Unfit(f"{path.name} cannot be read: {error.strerror or error}") from None
    try:
        state = os.fstat(file.fileno())
        folders = zip(FOLDERS, path.parents, strict=False)
        for what, checked in ((path.name, state), *((what, at.stat()) for what, at in folders)):
            if checked.st_uid not in (0, os.geteuid()) or checked.st_mode & stat.S_IWOTH:
                raise Unfit(f"others than root and the service's user may write to {what}")
        if not stat.S_ISREG(state.st_mode):
            raise Unfit(f"{path.name} is no file")
        if state.st_size > most:
            raise Unfit(f"{path.name} has {state.st_size} bytes, more than {most}")
    except BaseException:
        file.close()
        raise
    return file


def _opened(path: str, flags: int) -> int:
    """Open without waiting for whoever may be at the other end of what is no file."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _stamp(folder: Path) -> tuple[tuple[int, ...], ...]:
    """Return what tells whether the files are those of the last look."""
    stamps: list[tuple[int, ...]] = []
    for path in (folder / MODEL, folder / PIN, folder / WARM_UP):
        try:
            state = path.stat()
        except OSError:
            stamps.append(())
        else:
            stamps.append(
                (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            )
    return tuple(stamps)
