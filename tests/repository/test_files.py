"""What is taken for a version, and which files are trusted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from loader_service.repository.files import (
    MODEL,
    PIN,
    WARM_UP,
    Found,
    Unfit,
    find_versions,
    is_name,
    read_model,
    read_pin,
    read_warm_up,
)
from tests.repository.folders import put

CONTENT = b"model" * 1000


def only(folder: Path) -> Found:
    """The one version that is there."""
    (found,) = find_versions(folder)
    return found


def test_versions_are_numbers_in_their_order(tmp_path: Path) -> None:
    for name, version in (("b", 10), ("b", 9), ("a.x-1_2", 1)):
        put(tmp_path, name, version, CONTENT)
    for no_version in ("b/0", "b/01", "b/1a", "b/.3", ".hidden/1", "b/-1", "c", "b/" + "9" * 19):
        (tmp_path / no_version).mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "b" / "7").write_bytes(b"")
    found = [(version.name, version.number) for version in find_versions(tmp_path)]
    assert found == [("a.x-1_2", 1), ("b", 9), ("b", 10)]


@pytest.mark.parametrize("name", ["", ".a", "a/b", "..", "a b", "é", "-a", "a" * 129, "a\n"])
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)


def test_the_bytes_and_the_pin_are_read(tmp_path: Path) -> None:
    put(tmp_path, "a", 1, CONTENT)
    pieces: list[bytes] = []
    digest = hashlib.sha256(CONTENT).digest()
    assert read_model(only(tmp_path), len(CONTENT), lambda piece: pieces.append(bytes(piece))) == (
        digest
    )
    assert b"".join(pieces) == CONTENT
    assert read_pin(only(tmp_path)) == digest
    assert read_warm_up(only(tmp_path)) is None


def test_every_change_of_a_file_shows(tmp_path: Path) -> None:
    folder = put(tmp_path, "a", 1, CONTENT)
    stamps = [only(tmp_path).stamp]
    for name, content in ((MODEL, b"x"), (PIN, b"y"), (WARM_UP, b"z"), (WARM_UP, b"zz")):
        (folder / name).write_bytes(content)
        stamps.append(only(tmp_path).stamp)
    (folder / MODEL).unlink()
    stamps.append(only(tmp_path).stamp)
    assert len(set(stamps)) == len(stamps)


def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    folder = put(tmp_path, "a", 1, CONTENT)
    version = only(tmp_path)

    def read(most: int) -> None:
        read_pin(version)
        read_model(version, most, lambda _: None)

    def reason(most: int = 1 << 20) -> str:
        with pytest.raises(Unfit) as caught:
            read(most)
        return str(caught.value)

    assert reason(10) == f"{MODEL} has 5000 bytes, more than 10"
    (folder / PIN).write_bytes(b"0" * 63)
    assert reason() == f"{PIN} does not begin with a SHA-256"
    (folder / PIN).write_bytes(b"0" * 65)
    assert reason() == f"{PIN} does not begin with a SHA-256"
    (folder / PIN).write_bytes(b"0" * 64)
    (folder / MODEL).chmod(0o646)
    assert reason() == f"others than root and the service's user may write to {MODEL}"
    (folder / MODEL).chmod(0o644)
    folder.chmod(0o757)
    assert reason() == "others than root and the service's user may write to its folder"
    folder.chmod(0o755)
    folder.parent.chmod(0o757)
    assert reason().endswith("service's user may write to the folder of its name")
    folder.parent.chmod(0o755)
    tmp_path.chmod(0o707)
    assert reason().endswith("service's user may write to the repository")
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder / MODEL, 1234, -1)
        assert reason() == f"others than root and the service's user may write to {MODEL}"
    (folder / MODEL).unlink()
    assert reason() == f"{MODEL} cannot be read: No such file or directory"
    (folder / MODEL).mkdir()
    assert reason() == f"{MODEL} cannot be read: Is a directory"
    (folder / MODEL).rmdir()
    os.mkfifo(folder / MODEL)  # which nobody writes to: it is not waited for
    assert reason() == f"{MODEL} is no file"
