"""Files packed with a model: a zip archive that follows the FlatBuffer in the same file.

The archive is as untrusted as the model, so this reads only what `inspect` shows, and bounds it:
so many entries, and of each no more bytes than asked, however much it would unpack to.
Source of the layout: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from .flatbuffer import TEXT_LENGTH, MalformedModel, cut

MAXIMUM_ENTRIES = 256
"""Entries of an archive that are listed; the rest is left out."""

_PLACE = "packed files"
_END = struct.Struct("<4s4H2IH")
_END_MARK = b"PK\x05\x06"
_MAXIMUM_COMMENT = 0xFFFF
_ENTRY = struct.Struct("<4s6H3I5H2I")
_ENTRY_MARK = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_MARK = b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One entry of the archive."""

    name: str
    size: int
    """Bytes when unpacked, as the archive declares them."""
    _method: int
    _flags: int
    _packed_size: int
    _position: int

    def read(self, data: bytes, maximum: int) -> bytes:
        """The first `maximum` bytes, from the bytes of the whole model file.

        `MalformedModel` where the entry is damaged, encrypted, or packed in an unusual way.
        """
        place = f"{_PLACE}: {self.name}"
        if maximum <= 0:
            # For zlib 0 would mean: all.
            return b""
        if self._flags & _ENCRYPTED:
            raise MalformedModel(place, "is encrypted")
        header = _unpack(_LOCAL, data, self._position, place)
        if header[0] != _LOCAL_MARK:
            raise MalformedModel(place, "has no local header")
        start = self._position + _LOCAL.size + int(header[9]) + int(header[10])
        packed = data[start : start + self._packed_size]
        if self._method == _STORED:
            return packed[:maximum]
        if self._method != _DEFLATED:
            raise MalformedModel(place, f"is packed by method {self._method}")
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, maximum)
        except zlib.error as error:
            raise MalformedModel(place, "is damaged") from error


def packed_files(data: bytes) -> tuple[PackedFile, ...]:
    """The archive's entries, the first `MAXIMUM_ENTRIES`; none where no archive ends the file.

    `MalformedModel` where there is one and its directory is damaged.
    """
    end = _find_end(data)
    if end is None:
        return ()
    fields = _unpack(_END, data, end, _PLACE)
    count, directory_size, directory_offset = int(fields[4]), int(fields[5]), int(fields[6])
    # Writers count offsets from the start of the model or from the start of the archive.
    shift = end - directory_size - directory_offset
    if shift < 0:
        raise MalformedModel(_PLACE, "the directory lies outside the file")
    position = end - directory_size
    files = []
    for _ in range(min(count, MAXIMUM_ENTRIES)):
        entry = _unpack(_ENTRY, data, position, _PLACE)
        if entry[0] != _ENTRY_MARK:
            raise MalformedModel(_PLACE, f"the directory is damaged at byte {position}")
        name_length, extra_length, comment_length = (int(entry[index]) for index in (10, 11, 12))
        start = position + _ENTRY.size
        name = data[start : start + min(name_length, 4 * TEXT_LENGTH)]
        flags = int(entry[3])
        files.append(
            PackedFile(
                # Old archives may use code page 437, whose codec would have to be loaded.
                name=cut(name.decode("utf-8", "replace")),
                size=int(entry[9]),
                _method=int(entry[4]),
                _flags=flags,
                _packed_size=int(entry[8]),
                _position=int(entry[16]) + shift,
            )
        )
        position = start + name_length + extra_length + comment_length
    return tuple(files)


def _find_end(data: bytes) -> int | None:
    """Where the archive's end record stands: its comment must reach exactly to the file's end."""
    position = len(data)
    lowest = max(0, len(data) - _END.size - _MAXIMUM_COMMENT)
    while (position := data.rfind(_END_MARK, lowest, position)) >= 0:
        if len(data) - position >= _END.size:
            comment = int.from_bytes(
                data[position + _END.size - 2 : position + _END.size], "little"
            )
            if position + _END.size + comment == len(data):
                return position
    return None


def _unpack(code: struct.Struct, data: bytes, position: int, place: str) -> tuple[bytes | int, ...]:
    if not 0 <= position <= len(data) - code.size:
        raise MalformedModel(place, f"a header lies at byte {position} of {len(data)}")
    return code.unpack_from(data, position)
