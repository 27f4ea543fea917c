"""Which kernels run a model: XNNPACK's where the runtime delegates to it, else the built-in ones.

Both libraries delegate to XNNPACK by default, and that default is kept, because equality with the
plain library in process is the contract: so tflite-runtime, whose default flags leave quantized
graphs out, runs those on its built-in kernels, slower than it could.

A model whose delegated part fails gets a second chance without the delegate, as a fresh
interpreter, and only where this changes no answer that was already given: before the first
successful run since the load or the last reset.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from loader_service.runtime.native import NativeInterpreter

XNNPACK = "xnnpack"
BUILTIN = "builtin"


class Kernels(Enum):
    """Choices of kernels; the value is the libraries' number for an operator resolver."""

    DEFAULT = 1
    BUILTIN = 3
    """``BUILTIN_WITHOUT_DEFAULT_DELEGATES``: optimized kernels, no XNNPACK."""


class Delegated(NamedTuple):
    """The border of what a delegate has taken over: tensors of the primary subgraph."""

    inputs: tuple[int, ...]
    """Constants included."""
    outputs: tuple[int, ...]


def delegated(native: NativeInterpreter) -> list[Delegated]:
    """Return what delegates have taken over."""
    return [
        Delegated(tuple(native.NodeInputs(node).tolist()), tuple(native.NodeOutputs(node).tolist()))
        for node in range(native.NumNodes())
        if native.NodeName(node) == "DELEGATE"
    ]


def kernels_in_use(native: NativeInterpreter, delegates: int = 0) -> str:
    """Return ``"xnnpack"`` if a part of the primary subgraph was delegated, else ``"builtin"``.

    `delegates`: how many nodes are others' delegates.
    """
    names = (native.NodeName(node) for node in range(native.NumNodes()))
    return XNNPACK if sum(name == "DELEGATE" for name in names) > delegates else BUILTIN


def worth_a_retry(shapes: Iterable[tuple[int, ...]]) -> bool:
    """Whether built-in kernels may be tried on these inputs after XNNPACK refused them.

    Not without elements: XNNPACK refuses those in good order, built-in convolutions divide by zero.
    """
    return not any(0 in shape for shape in shapes)


def fallback_note(reason: str) -> str:
    """Say in the model's report why built-in kernels run."""
    return f"XNNPACK failed, so the built-in kernels run: {reason}"[:1000]
