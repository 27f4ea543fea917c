"""Arrays as NumPy writes them, read without it."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader_service.repository.arrays import KINDS, MAGIC, read_array, read_arrays
from loader_service.repository.files import Unfit


def saved(**arrays: Any) -> bytes:
    """An archive, as an operator makes it."""
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    return archive.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_what_numpy_writes_is_read(kind: str, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(kind)
    found = read_arrays(saved(**{"serving_default_x:0": array}), 1 << 20)["serving_default_x:0"]
    assert found.data_type.api_name == array.dtype.name
    assert (found.dimensions, found.data) == (shape, array.tobytes())


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(["text"]), "not one of numbers"),
        (np.array([1], ">f4"), "not one of numbers"),
        (np.array([{}], object), "not one of numbers"),
        (np.asfortranarray(np.ones((2, 3))), "Fortran order"),
    ],
)
def test_other_arrays_are_refused(array: Any, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        read_arrays(saved(x=array), 1 << 20)


def test_an_archive_that_grows_is_refused() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("x.npy", bytes(10_000_000))
    assert len(archive.getvalue()) < 20_000
    with pytest.raises(Unfit, match="more than 1000000 bytes"):
        read_arrays(archive.getvalue(), 1_000_000)
    with pytest.raises(Unfit, match="cannot be read"):
        read_arrays(b"no archive", 1_000_000)


@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_a_damaged_archive_is_read_or_refused(place: int, value: int, compressed: bool) -> None:
    archive = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(archive, x=np.arange(100, dtype=np.float32) * np.pi)
    data = bytearray(archive.getvalue())
    data[place % len(data)] = value
    with suppress(Unfit):
        read_arrays(bytes(data), 1 << 20)


def test_a_stream_that_is_none_and_other_compressions_are_refused() -> None:
    archive = io.BytesIO()
    np.savez_compressed(archive, x=np.arange(100))
    data = bytearray(archive.getvalue())
    data[data.index(b"x.npy") + 30] ^= 0xFF
    data[data.index(b"x.npy") + 25] ^= 0xFF
    with pytest.raises(Unfit, match="cannot be read"):
        read_arrays(bytes(data), 1 << 20)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as members:
        members.writestr("x.npy", b"")
    with pytest.raises(Unfit, match=r"x\.npy is not compressed as NumPy does it"):
        read_arrays(archive.getvalue(), 1 << 20)


def header(text: str) -> bytes:
    """An array with that header and no elements."""
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MAGIC,
        MAGIC + b"\x01\x00",
        MAGIC + b"\x03\x00" + bytes(10),
        header(""),
        header("[" * 10_000),
        header("__import__('os')"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -0)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"),
        header("{'descr': ['<f4'], 'fortran_order': False, 'shape': ()}"),
        MAGIC + b"\x02\x00" + struct.pack("<I", 2**32 - 1),
    ],
)
def test_what_is_no_array_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="array"):
        read_array(content)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(head: bytes, tail: bytes) -> None:
    for content in (head, header(repr(head)) + tail, MAGIC + b"\x01\x00" + head):
        try:
            found = read_array(content)
        except ValueError:
            continue
        assert len(found.data) <= len(content)
