"""A library's own delegate, in which we stand between it and the interpreter.

A library says what it takes by taking it. So its Prepare runs while the interpreter's function that
replaces nodes is ours: to ask, nothing is replaced; to apply, only what was chosen. Its kernels
are called through ours, which tell its failures from others, and hold it to the model's shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    standing_in,
)
from loader_service.devices.device import CompilationFailed, ExecutionFailed
from loader_service.devices.model_view import ModelView


class LibraryDelegate(Delegate):
    """Stands before a delegate that a library has made, until its end."""

    def __init__(self, name: str, model: ModelView, address: int) -> None:
        """Put our Prepare into the library's structure; raises CompilationFailed if that is odd."""
        super().__init__(name)
        self._structure = abi.TfLiteDelegate.from_address(address)
        if self._structure.opaque_delegate_builder or not self._structure.prepare:
            raise CompilationFailed("its delegate has no Prepare of the kind that is known here")
        self._model = model
        self._prepare = abi.DelegatePrepare(self._structure.prepare)
        self._original = self._structure.prepare
        self._replace: Any = None
        self._registration = abi.TfLiteRegistration()
        self._chosen: frozenset[int] | None = None
        self.after: Callable[[], None] = lambda: None
        """How the library ends its delegate."""
        self.taken: set[int] = set()
        """Nodes of the primary subgraph that the library took, or would take."""
        self._structure.prepare = PREPARE_DELEGATE
        self.register(address)

    def choose(self, nodes: frozenset[int]) -> None:
        """Let the library have these nodes only; it is only asked before."""
        self._chosen = nodes

    def end(self) -> None:
        """Give the library its Prepare back, and let go."""
        self._structure.prepare = self._original
        super().end()
        self.after()

    def prepare(self, context: Context) -> None:
        """Let the library ask for nodes of the primary subgraph.

        Raises CompilationFailed if it fails, or does not take what it had taken when it was asked.
        """
        if not self.is_for(context):
            return
        graph = context.contents
        self.taken.clear()
        self.failure = None
        with standing_in(self, graph) as self._replace:
            status = self._prepare(context, self.address)
        if self.failure is not None:
            raise self.failure
        if status != abi.OK:
            raise CompilationFailed(f"its Prepare ended with status {status}")
        if self._chosen is not None and (refused := self._chosen - self.taken):
            raise CompilationFailed(
                f"it took the operators {sorted(refused)} when it was asked, and not now"
            )

    def replace(
        self, context: Context, registration: abi.TfLiteRegistration, nodes: tuple[int, ...]
    ) -> int:
        """Note which nodes the library wants; replace those that were chosen."""
        count = len(self._model.nodes)
        # A graph that was delegated before has more: operators of other devices, which stay there.
        strange = [node for node in nodes if not 0 <= node < count]
        if strange and self._chosen is None:
            raise CompilationFailed(f"it takes nodes {strange} of a graph of {count}")
        self.taken.update(nodes)
        if self._chosen is None:
            return abi.OK
        wanted = sorted(self._chosen.intersection(nodes))
        if not wanted:
            return abi.OK
        if registration.registration_external or not registration.invoke:
            raise CompilationFailed("its kernels are of a kind that is not known here")
        self._registration = registration
        ours = abi.TfLiteRegistration.from_buffer_copy(registration)
        ours.init, ours.prepare, ours.invoke = INIT_KERNEL, PREPARE_KERNEL, INVOKE_KERNEL
        ours.builtin_code = abi.BUILTIN_DELEGATE
        status: int = self._replace(context, ours, abi.make_integers(wanted), self.address)
        return status

    def init(self, params: abi.TfLiteDelegateParams, context: int, length: int) -> int:
        """Let the library make its kernel, and stand before it."""
        theirs = self._registration
        user_data = 0
        if theirs.init:
            user_data = abi.KernelInit(theirs.init)(context, params, length) or 0
        kernel = LibraryKernel(self._model, theirs)
        known = self.kernel(user_data)
        if isinstance(known, LibraryKernel) and known.functions != kernel.functions:
            raise CompilationFailed("its kernels cannot be told apart")
        self.take_kernel(user_data, kernel)
        return user_data


class LibraryKernel:
    """Calls a library's kernel, and looks at what it did to the shapes."""

    def __init__(self, model: ModelView, registration: abi.TfLiteRegistration) -> None:
        self._model = model
        self.functions = (registration.prepare, registration.invoke)
        self._prepare = abi.KernelCall(registration.prepare) if registration.prepare else None
        self._invoke = abi.KernelCall(registration.invoke)

    def prepare(self, context: Context, node: Node) -> None:
        """Prepare; raises CompilationFailed, also for outputs of a shape that cannot be."""
        if self._prepare is not None:
            status = self._prepare(context, node)
            if status != abi.OK:
                raise CompilationFailed(f"its kernel ended with status {status}")
        tensors = context.contents.tensors
        for index in abi.integers(node.contents.outputs):
            if tensors[index].allocation_type != abi.AllocationType.DYNAMIC:
                require_shape(index, tensors[index], abi.integers(tensors[index].dims))
        if self._has_file_shapes(tensors, node.contents.inputs):
            for index, expected in self._fixed(node, tensors):
                shape = abi.integers(tensors[index].dims)
                if shape != expected:
                    raise CompilationFailed(
                        f"it gives tensor {index} the shape {shape}, and the model {expected}"
                    )

    def invoke(self, context: Context, node: Node) -> None:
        """Run; raises ExecutionFailed, also if that changed the shape of an output."""
        tensors = context.contents.tensors
        outputs = abi.integers(node.contents.outputs)
        before = [abi.integers(tensors[index].dims) for index in outputs]
        status = self._invoke(context, node)
        if status != abi.OK:
            raise ExecutionFailed(f"its kernel ended with status {status}")
        tensors = context.contents.tensors
        after = [abi.integers(tensors[index].dims) for index in outputs]
        for index, expected, shape in zip(outputs, before, after, strict=True):
            dynamic = tensors[index].allocation_type == abi.AllocationType.DYNAMIC
            if shape != expected and not dynamic:
                raise ExecutionFailed(f"it made tensor {index} {shape}, which was {expected}")

    def _has_file_shapes(self, tensors: Any, inputs: Any) -> bool:
        """Whether the inputs are as the file has them: only then are the outputs' shapes known."""
        known = self._model.tensors
        return all(
            abi.integers(tensors[index].dims) == known[index].shape
            for index in abi.integers(inputs)
            if 0 <= index < len(known)
        )

    def _fixed(self, node: Node, tensors: Any) -> list[tuple[int, tuple[int, ...]]]:
        """Return the outputs whose shape the file settles."""
        known = self._model.tensors
        return [
            (index, known[index].shape)
            for index in abi.integers(node.contents.outputs)
            if 0 <= index < len(known)
            and -1 not in abi.integers(tensors[index].dims_signature)
            and tensors[index].allocation_type != abi.AllocationType.DYNAMIC
        ]
