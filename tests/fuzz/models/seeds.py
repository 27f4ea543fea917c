"""The real models that mutants are made of: the writer's own, and the shared ones, if any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer import costly, small, stateful
from loader_service.writer.metadata import Description, TensorDescription, pack
from loader_service.writer.model import ModelWriter
from loader_service.writer.warm_up import warm_up_model
from tests.fuzz.models.kernels import kernel_models
from tests.shared_models import REPOSITORY, select

LARGEST = 120_000
"""Bytes of a shared model that mutants are made of: larger ones only take longer."""

DIGITS = REPOSITORY / "examples" / "digits" / "digits.tflite"


class Seed(NamedTuple):
    """A model, and the name that a report gives it."""

    name: str
    data: bytes


def seeds() -> list[Seed]:
    """Return all models, in an order that is the same in every run."""
    return [*own_seeds(), *shared_seeds()]


def shared_seeds() -> list[Seed]:
    """Return the small shared models that LiteRT runs; none where they are absent."""
    found = (Seed(model.name, model.read()) for model in select(runs=True))
    return [seed for seed in found if len(seed.data) <= LARGEST]


def own_seeds() -> list[Seed]:
    """Return the models that the project's writer makes."""
    return [Seed(f"own_{name}", data) for name, data in _own()]


def _own() -> Iterator[tuple[str, bytes]]:
    for make in (
        small.add, small.scalar, small.zero_size, small.dynamic_batch, small.dynamic_image,
        small.dynamic_output, small.two_signatures, small.repeated_names, small.empty_names,
        small.no_inputs, small.no_outputs, small.fill, stateful.counter, stateful.running_sum,
    ):  # fmt: skip
        yield make.__name__, make()
    for kind in (TensorType.INT8, TensorType.INT16, TensorType.INT64, TensorType.STRING):
        yield f"copy_{kind.name.lower()}", small.copy(kind)
    yield "double_int8", small.double(TensorType.INT8)
    yield "cast", small.cast(TensorType.INT8, TensorType.FLOAT32)
    yield "loop", costly.work(4)
    yield "layers", warm_up_model()
    yield "digits", DIGITS.read_bytes()
    yield "described", _described()
    yield from kernel_models()


def _described() -> bytes:
    """x: float32[1] → y = 2x, with metadata and a packed file of labels."""
    model = ModelWriter("doubles")
    graph = model.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,))
    y = graph.tensor("y", TensorType.FLOAT32, (1,))
    graph.operator(BuiltinOperator.ADD, [x, x], [y])
    graph.output(y)
    model.signature(small.DEFAULT_SIGNATURE, graph, {"x": x}, {"y": y})
    description = Description(
        name="doubles",
        description="twice what it is given",
        version="1",
        author="nobody",
        license="Apache-2.0",
        inputs=[TensorDescription("x", "any number")],
        outputs=[TensorDescription("y", "twice x", "labels.txt")],
    )
    model.metadata("TFLITE_METADATA", description.encode())
    model.metadata("min_runtime_version", b"1.5.0".ljust(16, b"\0"))
    return pack(model.write(), {"labels.txt": b"only\n"})
