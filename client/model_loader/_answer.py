"""The outputs of one call: where their bytes go, and what the caller gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from model_loader_wire.data_types import DataType
from model_loader_wire.description import TensorDescription
from model_loader_wire.exchange import Exchange
from model_loader_wire.frames import BadFrame, Entry, Kind
from model_loader_wire.steady_exchange import SteadyExchange
from model_loader_wire.strings import BadStrings, unpack_strings

from ._plan import Plan, Request, listed
from ._tensor import DTYPES, Array, MLTensor, shown
from .errors import DataError

EMPTY = memoryview(bytearray())


class Answer:
    """Takes in one answer; ``places`` and ``result`` are called by whoever carries the bytes."""

    def __init__(self, plan: Plan, bare: bool, outputs: Any = None) -> None:
        """`bare`: a single output is given without a name; `outputs`: memory of the caller's."""
        self.plan = plan
        self._bare = bare and len(plan.outputs) == 1
        self._given = None if outputs is None else _checked_outputs(plan, outputs)
        self._arrays: list[Array] | None = None
        self._misfit = ""

    def exchange(self, request: Request, sequence: int, *, alone: bool = True) -> Exchange:
        """Prepare what brings the answer: the request, and the places for the reply.

        Not `alone`: other requests may be under way, and the answer is wanted in any case.
        """
        pattern = request.pattern
        if pattern is not None and alone:
            return SteadyExchange(pattern, sequence, request.payload, self.expect(), self.places)
        plan = self.plan
        exchange = Exchange(
            Kind.COMPUTE,
            sequence,
            signature=plan.index,
            table=request.table,
            payload=request.payload,
            payload_length=request.length,
            places=self.places,
            known=plan.known,
            most=plan.most,
        )
        exchange.is_ahead = exchange.is_wanted = not alone
        return exchange

    def expect(self) -> Sequence[Array]:
        """Give memory for an answer of the known sizes, before it has come."""
        if self._given is not None:
            self._arrays = self._given
        else:
            self._arrays = [np.empty(shape, dtype) for shape, dtype in self.plan.known_arrays]
        return self._arrays

    def places(self, entries: tuple[Entry, ...]) -> Sequence[memoryview] | None:
        """Check an answer's table and give memory for its tensors; raises BadFrame."""
        plan = self.plan
        plan.check_answer(entries)
        self._arrays = None  # what was expected may be empty still, and is filled only by `expect`
        known = plan.known is not None and entries is plan.known.entries
        if self._given is not None:
            self._misfit = _misfit(plan, entries, self._given)
            if self._misfit or not known:
                return None
        elif not known:
            return None
        return [array.data.cast("B") if array.size else EMPTY for array in self.expect()]

    def result(self, entries: tuple[Entry, ...], tensors: Sequence[bytes | memoryview]) -> Any:
        """Give what ``compute`` returns; raises BadFrame, or DataError for outputs that misfit."""
        if self._misfit:
            raise DataError(self._misfit)
        arrays = self._arrays
        if arrays is None:
            arrays = [_decode(entry, data) for entry, data in zip(entries, tensors, strict=True)]
            if self._given is not None:
                for target, array in zip(self._given, arrays, strict=True):
                    if target.nbytes:
                        np.copyto(target.reshape(array.shape), array)
        if self._given is not None:
            return None
        if self._bare:
            return arrays[0]
        return {tensor.name: array for tensor, array in zip(self.plan.outputs, arrays, strict=True)}


def _decode(entry: Entry, data: bytes | memoryview) -> Array:
    try:
        if entry.data_type is DataType.STRING:
            strings = unpack_strings(data, prod(entry.dimensions))
            array: Array = np.empty(len(strings), dtype=object)
            array[:] = strings
            return array.reshape(entry.dimensions)
        if entry.data_type is DataType.UNKNOWN:
            return np.frombuffer(bytearray(data), dtype=np.uint8)
        # A copy: aligned, writable, and not holding on to the other tensors' bytes.
        dtype = DTYPES[entry.data_type]
        return np.ndarray(entry.dimensions, dtype, buffer=data).copy()
    except (BadStrings, ValueError, TypeError, MemoryError) as error:
        raise BadFrame(f"an output of dimensions {entry.dimensions} cannot be: {error}") from None


def _checked_outputs(plan: Plan, outputs: Any) -> list[Array]:
    """Check the caller's output arrays as far as they can be before the run."""
    tensors = plan.outputs
    names = [tensor.name for tensor in tensors]
    if isinstance(outputs, Mapping):
        missing = [name for name in names if name not in outputs]
        unknown = [str(name) for name in outputs if name not in names]
        if missing or unknown:
            raise DataError(
                f"outputs= takes one array for each output; missing: {missing}, not known: "
                f"{unknown}; the outputs are {listed(tensors)}"
            )
        values = [outputs[name] for name in names]
    elif isinstance(outputs, list | tuple):
        values = list(outputs)
    else:
        values = [outputs]
    if len(values) != len(tensors):
        raise DataError(
            f"outputs= has {len(values)} arrays, the model has {len(tensors)} outputs: "
            f"{listed(tensors)}"
        )
    targets = [_target(tensor, value) for tensor, value in zip(tensors, values, strict=True)]
    for one, other in combinations(range(len(targets)), 2):
        if np.may_share_memory(targets[one], targets[other]):
            raise DataError(
                f"outputs {names[one]!r} and {names[other]!r} need arrays of their own, not the "
                "same memory"
            )
    return targets


def _target(tensor: TensorDescription, value: Any) -> Array:
    name = tensor.name
    dimensions = None
    if isinstance(value, MLTensor):
        value, dimensions = value.data, value.dimensions
    if not isinstance(value, np.ndarray):
        raise DataError(
            f"output {name!r} is filled in place and takes a numpy.ndarray, not "
            f"{type(value).__name__}"
        )
    array = value.view(np.ndarray)
    wanted = DTYPES[tensor.data_type]
    if array.dtype != wanted:
        raise DataError(
            f"output {name!r} needs an array of {wanted}, not {array.dtype}"
            + (" (raw bytes)" if tensor.data_type is DataType.UNKNOWN else "")
        )
    if not array.flags.writeable or not array.flags.c_contiguous:
        raise DataError(f"output {name!r} needs an array that is writable and C-contiguous")
    if dimensions is not None:
        if prod(dimensions) != array.size:
            raise DataError(
                f"output {name!r}: {array.size} elements do not fill dimensions {list(dimensions)}"
            )
        array = array.reshape(dimensions)
    if tensor.data_type is DataType.UNKNOWN:
        if tensor.byte_length is not None and array.nbytes != tensor.byte_length:
            raise DataError(f"output {name!r} needs {tensor.byte_length} bytes, not {array.nbytes}")
    elif not tensor.accepts(array.shape):
        raise DataError(
            f"output {name!r} has dimensions {shown(tensor)}, the array {list(array.shape)}"
        )
    return array


def _misfit(plan: Plan, entries: tuple[Entry, ...], given: list[Array]) -> str:
    for tensor, entry, array in zip(plan.outputs, entries, given, strict=True):
        if tensor.data_type is DataType.UNKNOWN:
            fits = array.nbytes == entry.byte_length
        else:
            fits = array.shape == entry.dimensions
        if not fits:
            return (
                f"output {tensor.name!r} turned out to have dimensions {list(entry.dimensions)}, "
                f"the array given for it has {list(array.shape)}; the model is still usable"
            )
    return ""
