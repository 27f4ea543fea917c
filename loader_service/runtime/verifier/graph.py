"""What the rules look at: a model's tensors and operators, read out of the file's tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from loader_service.runtime.failures import InvalidModel, UnsupportedModel
from loader_service.runtime.schema import MODEL, SCHEMA_VERSION
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.verifier.structure import Record, Span, Structure

_FIRST_LONG_CODE = int(BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)


@dataclass(slots=True)
class Tensor:
    """One tensor; `data` is the constant's place and bytes in the file, None if there is none."""

    index: int
    type: int
    shape: tuple[int, ...]
    buffer: int
    data: tuple[int, int] | None
    is_variable: bool
    record: Record


@dataclass(slots=True)
class Operator:
    """One operator; `name` is the builtin's or the custom code."""

    index: int
    code: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Record | None
    record: Record
    graph: Subgraph = field(repr=False)

    @property
    def place(self) -> str:
        """Which operator a refusal names."""
        where = f" of subgraph {self.graph.index}" if self.graph.index else ""
        return f"operator {self.index} ({self.name}){where}"


@dataclass(slots=True)
class Subgraph:
    """One subgraph."""

    index: int
    tensors: list[Tensor]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: list[Operator] = field(default_factory=list)


class Model:
    """A file that has passed the check of its structure. Raises InvalidModel, UnsupportedModel."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.structure = Structure(data)
        self.record = self.structure.root(MODEL)
        version = self.record["version"]
        if version != SCHEMA_VERSION:
            raise InvalidModel(f"the model's schema version is {version}, not {SCHEMA_VERSION}")
        self.codes = [self._code(record) for record in self.record["operator_codes"] or ()]
        self.buffers = [
            self._buffer(number, record)
            for number, record in enumerate(self.record["buffers"] or ())
        ]
        self.subgraphs = [
            self._subgraph(number, record)
            for number, record in enumerate(self.record["subgraphs"] or ())
        ]
        if not self.subgraphs:
            raise InvalidModel("the model has no subgraph")

    def tensor_place(self, graph: Subgraph, index: int) -> str:
        """Which tensor a refusal names."""
        name = self.structure.text(graph.tensors[index].record["name"])
        where = f" of subgraph {graph.index}" if graph.index else ""
        return f"tensor {index} {name!r}{where}"

    def _code(self, record: Record) -> tuple[int, str, int]:
        """Number, name and version; readers take the larger of the two numbers."""
        number = max(record["deprecated_builtin_code"], record["builtin_code"])
        version = record["version"]
        if number == BuiltinOperator.CUSTOM:
            return number, self.structure.text(record["custom_code"]), version
        try:
            return number, BuiltinOperator(number).name, version
        except ValueError:
            if number < 0:
                raise InvalidModel(f"there is no builtin operator {number}") from None
            raise UnsupportedModel(
                f"builtin_code out of range: operator {number} came after this service"
            ) from None

    def _buffer(self, number: int, record: Record) -> tuple[int, int] | None:
        """Where the constant's bytes are: in the FlatBuffer, or behind it in large files."""
        span: Span | None = record["data"]
        offset, size = record["offset"], record["size"]
        # 0 and 1 stand for "not behind the FlatBuffer".
        if offset > 1 and size:
            if offset + size > len(self.data):
                raise InvalidModel(
                    f"buffer {number}: bytes {offset} to {offset + size} are outside the file"
                )
            if span:
                raise InvalidModel(f"buffer {number}: has its bytes in two places")
            return offset, size
        return (span.start, span.length) if span else None

    def _subgraph(self, number: int, record: Record) -> Subgraph:
        place = f"subgraph {number}"
        integers = self.structure.integers
        tensors = [
            self._tensor(index, tensor, place)
            for index, tensor in enumerate(record["tensors"] or ())
        ]
        graph = Subgraph(
            number,
            tensors,
            integers(record["inputs"], place),
            integers(record["outputs"], place),
        )
        for index, operator in enumerate(record["operators"] or ()):
            graph.operators.append(self._operator(index, operator, graph))
        return graph

    def _tensor(self, index: int, record: Record, place: str) -> Tensor:
        buffer = record["buffer"]
        if buffer >= len(self.buffers) and (buffer or self.buffers):
            raise InvalidModel(
                f"{place}, tensor {index}: there is no buffer {buffer} among {len(self.buffers)}"
            )
        return Tensor(
            index,
            record["type"],
            self.structure.integers(record["shape"], place),
            buffer,
            self.buffers[buffer] if self.buffers else None,
            record["is_variable"],
            record,
        )

    def _operator(self, index: int, record: Record, graph: Subgraph) -> Operator:
        number = record["opcode_index"]
        if number >= len(self.codes):
            raise InvalidModel(
                f"subgraph {graph.index}, operator {index}: there is no operator code {number} "
                f"among {len(self.codes)}"
            )
        code, name, version = self.codes[number]
        integers, place = self.structure.integers, graph.index
        options = record["builtin_options"] or record["builtin_options_2"]
        where = f"subgraph {place}, operator {index}"
        return Operator(
            index,
            code,
            name,
            version,
            integers(record["inputs"], where),
            integers(record["outputs"], where),
            integers(record["intermediates"], where),
            options,
            record,
            graph,
        )
