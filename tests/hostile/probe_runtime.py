"""A runtime whose models are attacks: it runs, inside a worker, what its caller names.

The model bytes are a real model with an order after it, so that whatever looks at models before
the runtime does sees a good one. An order is a JSON object: ``attack`` and ``arguments``. One that
comes with the model runs at load; those that come as input tensors run at each call and are
answered with a report as output.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from loader_service.runtime.engine import OutputTensor
from model_loader_wire.data_types import DataType
from model_loader_wire.description import (
    ModelDescription,
    SignatureDescription,
    TensorDescription,
)
from tests.hostile import attacks
from tests.hostile.attacks import calls, deaths, memory

ORDER = b"\0probe-order\0"
FAULTS = {
    "division by zero": "31c9 31d2 31c0 f7f1 c3",  # xor ecx,edx,eax; div ecx
    "illegal instruction": "0f0b",  # ud2
    "trap": "cc",  # int3
    "privileged instruction": "f4",  # hlt
    "jump into nothing": "31c0 ffe0",  # xor eax, eax; jmp rax
}


def carry_out(order: bytes) -> bytes:
    """Run the attack that an order names; returns its report."""
    wanted: dict[str, Any] = json.loads(order)
    if not wanted:
        return b"null"
    return json.dumps(attacks.find(wanted["attack"])(**wanted["arguments"])).encode()


class ProbeModel:
    """Carries out one order a call."""

    description = ModelDescription(
        (
            SignatureDescription(
                "",
                (TensorDescription("order", DataType.UINT8, (None,), None),),
                (TensorDescription("report", DataType.UINT8, (None,), None),),
            ),
        ),
        runtime="probe 1",
        kernels="builtin",
    )

    def __init__(self) -> None:
        self._order = bytearray()
        self._report = b""

    def prepare_inputs(
        self, signature: int, shapes: Sequence[tuple[int, ...]]
    ) -> list[memoryview | None]:
        """Make room for an order."""
        self._order = bytearray(shapes[0][0])
        return [memoryview(self._order)]

    def set_strings(
        self, signature: int, position: int, dimensions: tuple[int, ...], values: Sequence[bytes]
    ) -> None:
        """There are no strings."""
        raise NotImplementedError

    def invoke(self, signature: int) -> None:
        """Carry the order out."""
        self._report = carry_out(bytes(self._order))

    def outputs(self, signature: int) -> list[OutputTensor]:
        """Return the report."""
        return [OutputTensor(DataType.UINT8, (len(self._report),), self._report)]

    def steady(self, signature: int) -> None:
        """Each order is read anew."""

    def reset(self) -> None:
        """Nothing to reset."""


class ProbeRuntime:
    """The probe's side of ``loader_service.runtime.engine.Runtime``."""

    name = "probe"
    version = "1"
    library = None
    """Devices are opened with it, and no model is given to them."""

    def warm(self) -> None:
        """Prepare, in the zygote, what no worker could: executable code, the map of memory."""
        calls.map_gate()
        deaths.map_faults(tuple(FAULTS.values()))
        deaths.map_short_file()
        carry_out(b'{"attack": "inside.environment", "arguments": {}}')
        memory.learn_mappings()

    def load(self, model: bytes, *, threads: int, memory_bytes: int | None) -> ProbeModel:
        """Carry out the order that came with the model."""
        carry_out(model.rpartition(ORDER)[2])
        return ProbeModel()
