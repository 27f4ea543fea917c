"""The data types of the Model Loader API, with the codes they have on the wire.

Names and order are those of ``MLDataType`` in the W3C draft (as numbered by Chromium's
``web_platform_model.mojom``). ``STRING`` is an extension of this project.
"""

from __future__ import annotations

from enum import IntEnum


class DataType(IntEnum):
    """A tensor's element type; the value is the code on the wire."""

    UNKNOWN = 0
    INT64 = 1
    UINT64 = 2
    FLOAT64 = 3
    INT32 = 4
    UINT32 = 5
    FLOAT32 = 6
    INT16 = 7
    UINT16 = 8
    FLOAT16 = 9
    INT8 = 10
    UINT8 = 11
    BOOL = 12
    STRING = 13

    @property
    def api_name(self) -> str:
        """The specification's spelling, for example ``"float32"``."""
        return self.name.lower()

    @property
    def element_size(self) -> int | None:
        """Bytes per element; None for ``UNKNOWN`` and ``STRING``, which have no one size."""
        return _ELEMENT_SIZES.get(self)


_ELEMENT_SIZES = {
    DataType.INT64: 8,
    DataType.UINT64: 8,
    DataType.FLOAT64: 8,
    DataType.INT32: 4,
    DataType.UINT32: 4,
    DataType.FLOAT32: 4,
    DataType.INT16: 2,
    DataType.UINT16: 2,
    DataType.FLOAT16: 2,
    DataType.INT8: 1,
    DataType.UINT8: 1,
    DataType.BOOL: 1,
}
