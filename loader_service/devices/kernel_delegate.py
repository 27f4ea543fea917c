"""A delegate for one partition whose kernel is ours: a `KernelExecutable`."""

from __future__ import annotations

import ctypes
from itertools import count
from math import prod
from typing import Any

import numpy as np

from loader_service.devices import tflite_abi as abi
from loader_service.devices.delegate import (
    INIT_KERNEL,
    INVOKE_KERNEL,
    PREPARE_DELEGATE,
    PREPARE_KERNEL,
    Context,
    Delegate,
    Node,
    require_shape,
)
from loader_service.devices.device import (
    Array,
    CompilationFailed,
    ExecutionFailed,
    KernelExecutable,
)
from loader_service.devices.partition import Partition

ELEMENTS: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.int32),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int64),
    6: np.dtype(np.bool_),
    7: np.dtype(np.int16),
    8: np.dtype(np.complex64),
    9: np.dtype(np.int8),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.complex128),
    13: np.dtype(np.uint64),
    16: np.dtype(np.uint32),
    17: np.dtype(np.uint16),
}
"""By TfLiteType, which is not the file's TensorType; strings and packed elements have no array."""

_numbers = count(1)
"""``user_data`` must not be null, and is not used twice."""


class KernelDelegate(Delegate):
    """Gives an interpreter one operator instead of a partition's, and runs the executable there."""

    def __init__(self, name: str, partition: Partition, executable: KernelExecutable) -> None:
        """Make the C structure; it lives as long as this object is registered."""
        super().__init__(name)
        self._partition = partition
        self._kernel = PartitionKernel(partition, executable)
        self._number = next(_numbers)
        self._name = name.encode()
        self._structure = abi.TfLiteDelegate(
            prepare=PREPARE_DELEGATE, flags=int(abi.DelegateFlags.ALLOW_DYNAMIC_TENSORS)
        )
        self.register(ctypes.addressof(self._structure))

    def prepare(self, context: Context) -> None:
        """Replace the partition's nodes in the primary subgraph; the others are let be.

        Raises CompilationFailed where the interpreter would cut the partition in pieces.
        """
        if not self.is_for(context):
            return
        graph = context.contents
        nodes = abi.make_integers(self._partition.nodes)
        pieces, params = ctypes.c_int(), abi.ParamsPointer()
        preview = abi.PreviewDelegatePartitioning(graph.preview_delegate_partitioning)
        if preview(context, nodes, ctypes.byref(params), ctypes.byref(pieces)) != abi.OK:
            raise CompilationFailed("the interpreter does not say how it would cut the graph")
        if pieces.value != 1:
            raise CompilationFailed(
                f"the interpreter would cut the partition into {pieces.value} pieces"
            )
        registration = abi.TfLiteRegistration(
            init=INIT_KERNEL,
            prepare=PREPARE_KERNEL,
            invoke=INVOKE_KERNEL,
            builtin_code=abi.BUILTIN_DELEGATE,
            custom_name=self._name,
            version=1,
        )
        replace = abi.ReplaceNodeSubsets(graph.replace_node_subsets_with_delegate_kernels)
        if replace(context, registration, nodes, self.address) != abi.OK:
            raise CompilationFailed("the interpreter does not give the operators up")
        if self.kernel(self._number) is None and self.failure is not None:
            raise self.failure

    def init(self, params: abi.TfLiteDelegateParams, context: int, length: int) -> int:
        """Check that the interpreter sees the partition's border as we do."""
        own = self._partition
        for what, ours, theirs in (
            ("inputs", own.inputs, abi.integers(params.input_tensors)),
            ("outputs", own.outputs, abi.integers(params.output_tensors)),
        ):
            if not set(ours) <= set(theirs):
                raise CompilationFailed(
                    f"the partition's {what} are {list(ours)}, for the interpreter {list(theirs)}"
                )
        if missing := set(abi.integers(params.output_tensors)) - set(own.outputs):
            raise CompilationFailed(f"nobody would compute the tensors {sorted(missing)}")
        self.take_kernel(self._number, self._kernel)
        return self._number


class PartitionKernel:
    """Runs an executable on the memory of an interpreter's tensors."""

    def __init__(self, partition: Partition, executable: KernelExecutable) -> None:
        self._partition = partition
        self._executable = executable
        self._prepared: tuple[tuple[int, ...], ...] | None = None
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._views: dict[int, tuple[int, tuple[int, ...], Array]] = {}

    def prepare(self, context: Context, node: Node) -> None:
        """Make the executable ready for the inputs' shapes, and give the outputs theirs."""
        del node
        graph = context.contents
        shapes = tuple(abi.integers(graph.tensors[index].dims) for index in self._partition.inputs)
        if shapes != self._prepared:
            self._prepared = None
            self._shapes = self._checked(self._executable.prepare(shapes))
            self._prepared = shapes
        resize = abi.ResizeTensor(graph.resize_tensor)
        for index, shape in zip(self._partition.outputs, self._shapes, strict=True):
            require_shape(index, graph.tensors[index], shape)
            # The memory of a tensor that was resized is somewhere else; its record stays.
            tensor = ctypes.pointer(graph.tensors[index])
            if resize(context, tensor, abi.give_integers(shape)) != abi.OK:
                raise CompilationFailed(f"the interpreter refuses tensor {index} to be {shape}")

    def invoke(self, context: Context, node: Node) -> None:
        """Run the executable."""
        del node
        tensors = context.contents.tensors
        inputs = [self._array(index, tensors[index]) for index in self._partition.inputs]
        outputs = [self._array(index, tensors[index]) for index in self._partition.outputs]
        self._executable.run(inputs, outputs)

    def _checked(self, shapes: Any) -> tuple[tuple[int, ...], ...]:
        """Take the shapes that a device gives; they end in an allocator, so they must be sane."""
        result = tuple(tuple(int(size) for size in shape) for shape in shapes)
        if len(result) != len(self._partition.outputs):
            raise CompilationFailed(
                f"{len(result)} shapes came for {len(self._partition.outputs)} outputs"
            )
        for shape in result:
            if any(not 0 <= size < 1 << 31 for size in shape):
                raise CompilationFailed(f"an output cannot have the shape {shape}")
        return result

    def _array(self, index: int, tensor: abi.TfLiteTensor) -> Array:
        """Return a tensor as an array over its memory, which moves when the graph is prepared."""
        address, shape = tensor.data or 0, abi.integers(tensor.dims)
        kept = self._views.get(index)
        if kept is not None and kept[0] == address and kept[1] == shape:
            return kept[2]
        element = ELEMENTS.get(tensor.type)
        if element is None:
            raise ExecutionFailed(f"tensor {index} has elements of type {tensor.type}")
        length = prod(shape) * element.itemsize
        if length == 0:
            return np.empty(shape, element)
        if not address or length > tensor.bytes:
            raise ExecutionFailed(f"tensor {index} has no memory for the shape {shape}")
        memory = (ctypes.c_char * length).from_address(address)
        array: Array = np.frombuffer(memoryview(memory), element).reshape(shape)
        self._views[index] = (address, shape, array)
        return array
