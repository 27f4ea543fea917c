"""Reads what a model file says of itself: metadata, and the files packed with it.

A runtime takes no notice of either, so damage here is no fault of the model: it ends in a remark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from . import schema_metadata
from .associated_files import PackedFile, packed_files
from .flatbuffer import FlatBuffer, MalformedModel, TableReader, cut
from .schema_metadata import AssociatedFileType
from .summary import AssociatedFileSummary, MetadataSummary

SHOWN_LINES = 10
SHOWN_LINE_LENGTH = 200
SHOWN_LABELS = 10_000
"""Lines of a file of labels: all of them, in any honest model, for they name the outputs."""
_TEXT_BYTES = 4096
_LABEL_BYTES = 256 << 10
"""Of all files of labels together."""
_METADATA_BYTES = 4 << 20

_LABEL_KINDS = {
    AssociatedFileType.TENSOR_AXIS_LABELS.name,
    AssociatedFileType.TENSOR_VALUE_LABELS.name,
}
_FILE_KINDS = {int(kind): kind.name for kind in AssociatedFileType}


def _buffer(data: bytes, model: TableReader, index: int, maximum: int) -> bytes:
    """The first bytes of a buffer, wherever they lie in the file."""
    buffer = model.element("buffers", index)
    offset, size = buffer.integer("offset"), buffer.integer("size")
    # An offset of 0 or 1 stands for data inside the FlatBuffer.
    if offset > 1:
        return data[offset : offset + min(size, maximum)]
    return buffer.raw("data", maximum)


def minimum_runtime_version(data: bytes, model: TableReader, buffers: Mapping[str, int]) -> str:
    """The oldest runtime that knows all operators, as the converter wrote it; else empty."""
    index = buffers.get(schema_metadata.MINIMUM_RUNTIME_VERSION_NAME)
    if index is None:
        return ""
    # Converters fill a field of fixed length up with NUL.
    return _buffer(data, model, index, _TEXT_BYTES).split(b"\0")[0].decode("utf-8", "replace")


def author_metadata(
    data: bytes, model: TableReader, buffers: Mapping[str, int], remarks: list[str]
) -> tuple[MetadataSummary | None, dict[str, str]]:
    """The author's words, and the kinds of the packed files by name."""
    buffer = buffers.get(schema_metadata.METADATA_NAME)
    if buffer is None:
        return None, {}
    try:
        content = _buffer(data, model, buffer, _METADATA_BYTES)
        metadata = FlatBuffer(content, schema_metadata.METADATA_NAME).root(
            schema_metadata.MODEL_METADATA, schema_metadata.FILE_IDENTIFIER
        )
        summary = MetadataSummary(
            name=metadata.text("name"),
            description=metadata.text("description"),
            version=metadata.text("version"),
            author=metadata.text("author"),
            license=metadata.text("license"),
            minimum_parser_version=metadata.text("min_parser_version"),
        )
        kinds = {
            file.text("name"): _FILE_KINDS.get(file.integer("type"), "UNKNOWN")
            for file in _described_files(metadata)
        }
    except MalformedModel as error:
        remarks.append(cut(f"metadata left out: {error}"))
        return None, {}
    return summary, kinds


def _described_files(metadata: TableReader) -> Iterator[TableReader]:
    """The files that the metadata speaks of: of the model, of its subgraphs, of their tensors."""
    yield from metadata.children("associated_files")
    for graph in metadata.children("subgraph_metadata"):
        yield from graph.children("associated_files")
        for ports in ("input_tensor_metadata", "output_tensor_metadata"):
            for port in graph.children(ports):
                yield from port.children("associated_files")


def associated_file_summaries(
    data: bytes, kinds: Mapping[str, str], remarks: list[str]
) -> tuple[AssociatedFileSummary, ...]:
    """The files packed behind the model, with the first lines of those that are text."""
    summaries = []
    try:
        files = packed_files(data)
    except MalformedModel as error:
        remarks.append(cut(f"packed files left out: {error}"))
        return ()
    label_bytes = _LABEL_BYTES
    for file in files:
        kind = kinds.get(file.name, AssociatedFileType.UNKNOWN.name)
        try:
            if kind in _LABEL_KINDS and file.size <= label_bytes:
                label_bytes -= file.size
                lines = _first_lines(file, data, file.size, SHOWN_LABELS)
            else:
                lines = _first_lines(file, data, _TEXT_BYTES, SHOWN_LINES)
        except MalformedModel as error:
            remarks.append(cut(f"content left out: {error}"))
            lines = ()
        summaries.append(AssociatedFileSummary(file.name, file.size, kind, lines))
    return tuple(summaries)


def _first_lines(file: PackedFile, data: bytes, size: int, count: int) -> tuple[str, ...]:
    """The first `count` lines within `size` bytes; nothing of what does not look like a text."""
    content = file.read(data, size) if size else b""
    if b"\0" in content:
        return ()
    cut_off = len(content) == size < file.size
    text = content.decode("utf-8", "ignore" if cut_off else "replace")
    if "\N{REPLACEMENT CHARACTER}" in text:
        return ()
    lines = text.splitlines()
    if cut_off and len(lines) > 1:
        # The last line may be cut in the middle.
        lines.pop()
    return tuple(cut(line, SHOWN_LINE_LENGTH) for line in lines[:count])
