"""Reading NumPy's archives without NumPy: the broker has none, and needs the bytes only.

The formats are those of ``numpy.lib.format``, version 1 and 2, and of ``numpy.savez``.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass

from loader_service.repository.files import Unfit
from model_loader_wire.data_types import DataType

MAGIC = b"\x93NUMPY"
HEADER_BYTES = 65536
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(ValueError, OSError, EOFError),
)
"""What the standard library raises for an archive that is none, or is damaged."""
KINDS = {
    "<i8": DataType.INT64,
    "<u8": DataType.UINT64,
    "<f8": DataType.FLOAT64,
    "<i4": DataType.INT32,
    "<u4": DataType.UINT32,
    "<f4": DataType.FLOAT32,
    "<i2": DataType.INT16,
    "<u2": DataType.UINT16,
    "<f2": DataType.FLOAT16,
    "|i1": DataType.INT8,
    "|u1": DataType.UINT8,
    "|b1": DataType.BOOL,
}


@dataclass(frozen=True, slots=True)
class Array:
    """One array: its elements in C order."""

    data_type: DataType
    dimensions: tuple[int, ...]
    data: bytes


def read_arrays(archive: bytes, most: int) -> dict[str, Array]:
    """Read an archive of arrays of at most so many bytes together; raises Unfit."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            if sum(member.file_size for member in members.infolist()) > most:
                raise Unfit(f"the inputs to warm up with have more than {most} bytes")
            for member in members.infolist():
                if member.compress_type not in COMPRESSIONS:
                    raise ValueError(f"{member.filename} is not compressed as NumPy does it")
                arrays[member.filename.removesuffix(".npy")] = read_array(members.read(member))
    except BROKEN as error:
        raise Unfit(f"the inputs to warm up with cannot be read: {error}") from None
    return arrays


def read_array(content: bytes) -> Array:
    """Read one array; raises ValueError."""
    if content[:6] != MAGIC or content[6:7] not in (b"\x01", b"\x02"):
        raise ValueError("this is no array of NumPy's format 1 or 2")
    width = "<H" if content[6] == 1 else "<I"
    start = 8 + struct.calcsize(width)
    if len(content) < start:
        raise ValueError("the array's header is cut short")
    (length,) = struct.unpack_from(width, content, 8)
    if length > HEADER_BYTES:
        raise ValueError("the array's header is too long")
    try:
        header = ast.literal_eval(content[start : start + length].decode("latin-1").strip())
        kind, shape = KINDS[header["descr"]], tuple(map(_size, header["shape"]))
        in_order = not header["fortran_order"] or len(shape) < 2
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError("the array's header is not one of numbers in this byte order") from None
    if not in_order:
        raise ValueError("the array is in Fortran order: save numpy.ascontiguousarray() of it")
    data = content[start + length :]
    if len(data) != math.prod(shape) * (kind.element_size or 0):
        raise ValueError(f"the array has {len(data)} bytes, which is not what its shape says")
    return Array(kind, shape, data)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value
