"""String tensors on the wire: TensorFlow Lite's own layout.

``int32 count``, ``int32 offsets[count + 1]`` from the start of the buffer, then the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise


class BadStrings(ValueError):
    """Bytes that are no string tensor."""


def pack_strings(values: Sequence[bytes]) -> bytes:
    """Lay out the elements of a string tensor, in row-major order."""
    place = 4 * (len(values) + 2)
    offsets = [place]
    for value in values:
        place += len(value)
        offsets.append(place)
    if place >= 2**31:
        raise BadStrings(f"{place} bytes of strings are more than the layout can hold")
    return struct.pack(f"<{len(values) + 2}i", len(values), *offsets) + b"".join(values)


def unpack_strings(data: bytes | bytearray | memoryview, count: int) -> list[bytes]:
    """Read exactly `count` elements; raises BadStrings for any other layout."""
    data = memoryview(data)
    if len(data) < 4 * (count + 2) or struct.unpack_from("<i", data)[0] != count:
        raise BadStrings(f"the buffer does not hold {count} strings")
    offsets = struct.unpack_from(f"<{count + 1}i", data, 4)
    if offsets[0] != 4 * (count + 2) or offsets[-1] != len(data):
        raise BadStrings("the strings do not fill their buffer")
    if any(after < before for before, after in pairwise(offsets)):
        raise BadStrings("the strings' offsets go backwards")
    return [bytes(data[before:after]) for before, after in pairwise(offsets)]
