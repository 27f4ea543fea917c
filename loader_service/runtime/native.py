"""The calls that both runtimes' interpreters have in common, typed.

This is the object behind ``Interpreter`` in ``ai_edge_litert`` and ``tflite_runtime``: its calls
take a subgraph, which named signatures need, and do not insist that no view of a tensor is held.
The class on top is used to build it only.
"""
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class NativeInterpreter(Protocol):
    """One interpreter. Each call raises ValueError or RuntimeError with the runtime's words."""

    def AllocateTensors(self, subgraph_index: int = -1) -> None:
        """Prepare all operators of a subgraph; -1 is the primary one."""

    def Invoke(self, subgraph_index: int = 0) -> None:
        """Run a subgraph."""

    def InputIndices(self) -> Array:
        """Return the primary subgraph's inputs."""
        ...

    def OutputIndices(self) -> Array:
        """Return the primary subgraph's outputs."""
        ...

    def GetSignatureDefs(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return, by signature, ``inputs`` and ``outputs``: tensor indices by name."""
        ...

    def GetSubgraphIndexFromSignature(self, arg0: str) -> int:
        """Return the subgraph that a signature runs."""
        ...

    def ResizeInputTensor(
        self, i: int, value: Array, strict: bool, subgraph_index: int = 0
    ) -> None:
        """Give an input another shape (int32 array); strict refuses to change known sizes."""

    def SetTensor(self, i: int, value: Array, subgraph_index: int = 0) -> None:
        """Copy an array of the tensor's exact type and shape into it."""

    def GetTensor(self, tensor_index: int, subgraph_index: int = 0) -> Any:
        """Return a copy; an array of bytes objects for strings, a NumPy scalar for rank 0."""
        ...

    def tensor(self, base_object: object, tensor_index: int, subgraph_index: int = 0) -> Any:
        """Return an array over the tensor's memory; for rank 0 a copy. Crashes on strings."""
        ...

    def TensorName(self, arg0: int, arg1: int) -> str:
        """Return a tensor's name, of (tensor, subgraph)."""
        ...

    def TensorSize(self, arg0: int, arg1: int) -> Array:
        """Return a tensor's present shape, of (tensor, subgraph)."""
        ...

    def TensorSizeSignature(self, arg0: int, arg1: int) -> Array:
        """Return a tensor's shape with -1 for sizes known only at run time."""
        ...

    def TensorSparsityParameters(self, arg0: int, arg1: int) -> dict[str, object]:
        """Return how a sparse tensor is stored; empty for a dense one."""
        ...

    def NumNodes(self) -> int:
        """Return how many nodes the primary subgraph has, replaced ones included."""
        ...

    def NodeName(self, arg0: int) -> str:
        """Return an operator's name; ``DELEGATE`` where a delegate took operators over."""
        ...

    def NodeInputs(self, i: int) -> Array:
        """Return an operator's inputs, tensors of the primary subgraph; -1 for one left out."""
        ...

    def NodeOutputs(self, i: int) -> Array:
        """Return an operator's outputs."""
        ...

    def ModifyGraphWithDelegate(self, delegate_ptr: int) -> None:
        """Let the TfLiteDelegate at an address, which must outlive this, take operators over."""


@dataclass(frozen=True, slots=True)
class Library:
    """An importable runtime: what ``litert`` and ``tflite_runtime`` each fill in."""

    name: str
    version: str
    interpreter_class: Callable[..., Any]
    resolver_type: Callable[[int], Any]
    """The library's ``OpResolverType``."""

    def create(self, model: bytes, *, threads: int, resolver: int) -> NativeInterpreter:
        """Parse a model; the interpreter keeps a reference to the bytes and copies nothing."""
        interpreter = self.interpreter_class(
            model_content=model,
            num_threads=threads,
            experimental_op_resolver_type=self.resolver_type(resolver),
        )
        native: NativeInterpreter = interpreter._interpreter
        return native
