"""A partition compiled by OpenVINO, run on the interpreter's own memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from loader_service.devices.device import (
    Array,
    Cache,
    Compilation,
    CompilationFailed,
    ExecutionFailed,
)
from loader_service.devices.openvino_library import (
    ELEMENT_TYPES,
    ERRORS,
    Library,
    first_line,
    left_over,
    port_of,
)
from loader_service.devices.partition import Partition
from loader_service.runtime.schema_tensor_types import TensorType

Shapes = tuple[tuple[int, ...], ...]


class OpenVinoKernel:
    """See `KernelExecutable`. Compiled for the shapes that were prepared last."""

    def __init__(
        self,
        library: Library,
        device: str,
        partition: Partition,
        compilation: Compilation,
        configuration: Mapping[str, Any],
    ) -> None:
        """Compile for the shapes that the file has; raises CompilationFailed."""
        self._library = library
        self._device = device
        self._partition = partition
        self._compilation = compilation
        self._configuration = dict(configuration)
        self._hits: list[bool] = []
        self._compiled: Any = None
        self._request: Any = None
        self._places: tuple[list[int], list[int]] = ([], [])
        self._bound: list[tuple[int, tuple[int, ...]]] = []
        self._prepared: Shapes | None = None
        self._answers: Shapes = ()
        tensors = compilation.model.tensors
        answers = self.prepare([tensors[index].shape for index in partition.inputs])
        for index, shape in zip(partition.outputs, answers, strict=True):
            if shape != tensors[index].shape:
                raise CompilationFailed(
                    f"OpenVINO gives tensor {index} the shape {shape}, not {tensors[index].shape}"
                )

    @property
    def cache_hit(self) -> bool | None:
        """Whether every compilation came out of the cache; None without one."""
        return all(self._hits) if self._hits else None

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        """Compile for these shapes, unless that was the last thing done."""
        wanted = tuple(shapes)
        if wanted != self._prepared:
            self.close()
            cache = self._compilation.cache
            if cache is None or not cache.is_open:
                self._compile(wanted)
            else:
                key = self._key(wanted)
                blob = cache.get(key)
                hit = blob is not None and self._import(blob, wanted)
                self._hits.append(hit)
                if not hit:
                    self._compile(wanted)
                    self._keep(cache, key)
            self._prepared = wanted
        return self._answers

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute from the inputs' memory into the outputs'."""
        if self._request is None:
            raise ExecutionFailed("the partition is not compiled")
        try:
            bound = [(array.ctypes.data, array.shape) for array in (*inputs, *outputs)]
            # The interpreter's tensors stay where they are from one run to the next.
            if bound != self._bound:
                self._bound = []
                self._bind(inputs, outputs)
                self._bound = bound
            self._request.infer()
        except ERRORS as error:
            raise ExecutionFailed(f"OpenVINO: {first_line(error)}") from None

    def close(self) -> None:
        """Let go of the compiled partition."""
        self._prepared = None
        self._request = self._compiled = None
        self._bound = []

    def _bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        tensor = self._library.openvino.Tensor
        own_inputs, own_outputs = self._places
        for place, array in zip(own_inputs, inputs, strict=True):
            self._request.set_input_tensor(place, tensor(array, shared_memory=True))
        for place, array in zip(own_outputs, outputs, strict=True):
            self._request.set_output_tensor(place, tensor(array, shared_memory=True))

    def _compile(self, shapes: Shapes) -> None:
        """Compile for these shapes. Raises CompilationFailed."""
        try:
            read = self._library.read(self._compilation.model, self._partition, shapes)
            if left := left_over(read):
                raise CompilationFailed(f"OpenVINO does not translate {len(left)} operators of it")
            self._compiled = self._library.core.compile_model(
                read, self._device, self._configuration
            )
            self._make_ready(shapes)
        except CompilationFailed:
            self.close()
            raise
        except ERRORS as error:
            self.close()
            raise CompilationFailed(f"OpenVINO does not compile it: {first_line(error)}") from None

    def _import(self, blob: bytes, shapes: Shapes) -> bool:
        """Take a compiled partition over; a blob that is not for this one is let go."""
        try:
            self._compiled = self._library.core.import_model(
                io.BytesIO(blob), self._device, self._configuration
            )
            self._make_ready(shapes)
        except (CompilationFailed, *ERRORS):
            self.close()
            return False
        return True

    def _keep(self, cache: Cache, key: bytes) -> None:
        """Have what was compiled kept, if it is of a kind that can be."""
        try:
            blob = self._compiled.export_model().getvalue()
        except ERRORS:
            return
        cache.put(key, blob)

    def _make_ready(self, shapes: Shapes) -> None:
        """Look at what was compiled, and prepare to run it. Raises CompilationFailed."""
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        for index, shape in zip(self._partition.inputs, shapes, strict=True):
            if tuple(port_of(inputs, index).get_partial_shape().to_shape()) != shape:
                raise CompilationFailed(f"OpenVINO takes tensor {index} in another shape")
        self._answers = self._shapes_of_answers()
        self._places = (
            [self._place(inputs, index) for index in self._partition.inputs],
            [self._place(outputs, index) for index in self._partition.outputs],
        )
        self._request = self._compiled.create_infer_request()

    def _shapes_of_answers(self) -> Shapes:
        shapes = []
        for index in self._partition.outputs:
            shape = port_of(self._compiled.outputs, index).get_partial_shape()
            if shape.is_dynamic:
                raise CompilationFailed(f"the size of tensor {index} is known only when it runs")
            shapes.append(tuple(shape.to_shape()))
        return tuple(shapes)

    def _place(self, ports: Sequence[Any], tensor: int) -> int:
        """Return a port's number, after a look at its element type."""
        port = port_of(ports, tensor)
        type_name = port.get_element_type().get_type_name()
        wanted = ELEMENT_TYPES[TensorType(self._compilation.model.tensors[tensor].type)]
        if type_name != wanted:
            raise CompilationFailed(f"OpenVINO gives tensor {tensor} {type_name}, not {wanted}")
        return next(number for number, each in enumerate(ports) if each is port)

    def _key(self, shapes: Shapes) -> bytes:
        """What a compiled partition is good for: everything that went into it."""
        digest = hashlib.sha256(self._compilation.model.data)
        digest.update(
            repr(
                (
                    self._device,
                    self._library.hardware[self._device],
                    self._library.version,
                    sorted(self._configuration.items()),
                    self._partition,
                    shapes,
                )
            ).encode()
        )
        return digest.digest()
