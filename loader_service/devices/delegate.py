"""The functions that an interpreter calls, and what of ours stands behind each.

They are made once, when this module is imported: a worker that is locked down gets no executable
memory for new ones, and a function that nobody holds any more cannot be called by mistake. Which
delegate or kernel is meant is looked up by address, so an interpreter that has outlived its
devices gets a clean error. No exception leaves: it becomes an error of the interpreter that names
the device, and is kept as the delegate's `failure`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, Protocol

from loader_service.devices import tflite_abi as abi
from loader_service.devices.device import CompilationFailed, DeviceError, ExecutionFailed
from loader_service.devices.following import Following

Context = Any
"""A pointer to a `tflite_abi.TfLiteContext`."""
Node = Any
"""A pointer to a `tflite_abi.TfLiteNode`."""
TAKE_OVER, PREPARE, RUN = "take over", "prepare", "run"
"""What a delegate can fail to do."""


class Kernel(Protocol):
    """What stands behind one operator of a delegate's."""

    def prepare(self, context: Context, node: Node) -> None:
        """Give the outputs their shapes; raises any exception."""

    def invoke(self, context: Context, node: Node) -> None:
        """Compute the outputs; raises any exception."""


class Delegate(Following):
    """One TfLiteDelegate, from its registration to its end; see `AppliedDelegate`."""

    def __init__(self, name: str) -> None:
        """Be called `name` in the interpreter's messages: a device, and which part it is for."""
        super().__init__()
        self.name = name
        self._graph: int | None = None
        self.failure: DeviceError | None = None
        """What the last preparation or run raised."""
        self.address = 0
        self.preparing_ns = 0
        """How long it took to take operators over and to prepare for the first run, by the clock of
        this process."""
        self.runs = 0
        """How often one of its operators ran to the end."""
        self.elapsed_ns = 0
        """How long that took, by the clock of this process."""

    @property
    def was_prepared(self) -> bool:
        """Whether the interpreter has asked for operators of the primary subgraph to be taken."""
        return self._graph is not None

    def register(self, address: int) -> None:
        """Stand behind the delegate at this address."""
        self.address = address
        _delegates[address] = self

    def end(self) -> None:
        """Let go of the delegate and its kernels."""
        _delegates.pop(self.address, None)
        for key in [key for key in _kernels if key[0] == self.address]:
            del _kernels[key]

    def take_kernel(self, user_data: int, kernel: Kernel) -> None:
        """Stand behind the operators with this ``user_data``."""
        _kernels[self.address, user_data] = kernel

    def kernel(self, user_data: int) -> Kernel | None:
        """Return what stands behind these operators."""
        return _kernels.get((self.address, user_data))

    def prepare(self, context: Context) -> None:
        """Take operators of a graph over; raises any exception."""
        raise NotImplementedError

    def is_for(self, context: Context) -> bool:
        """Whether a graph is the primary subgraph, whose operators are the only ones to be taken.

        It comes first, and again when it is delegated anew. Raises CompilationFailed for a model of
        which the interpreter gives others to delegates, and that one not.
        """
        graph = context.contents.impl
        if self._graph is None:
            if not abi.is_primary(context):
                raise CompilationFailed("the interpreter gives no device the primary subgraph")
            self._graph = graph
        return bool(graph == self._graph)

    def replace(
        self, context: Context, registration: abi.TfLiteRegistration, nodes: tuple[int, ...]
    ) -> int:
        """Hear which nodes a library would replace, and by what; return a status."""
        raise NotImplementedError

    def init(self, params: abi.TfLiteDelegateParams, context: int, length: int) -> int:
        """Make a kernel while the operators are replaced; return its ``user_data``."""
        raise NotImplementedError

    def fail(self, context: Context, what: str, error: BaseException) -> int:
        """Keep a failure, say it, and return the interpreter's status for it."""
        self.failure = as_device_error(error, ExecutionFailed if what == RUN else CompilationFailed)
        # Behind the library's own words, if it had some, which end in no space.
        abi.report(context, f" {self.name} could not {what}: {self.failure}. ")
        return abi.ERROR


def as_device_error(error: BaseException, kind: type[DeviceError]) -> DeviceError:
    """Return an error as a device's, which it may be already."""
    if isinstance(error, DeviceError):
        return error
    text = str(error)
    return kind(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def require_shape(index: int, tensor: abi.TfLiteTensor, shape: tuple[int, ...]) -> None:
    """Raise CompilationFailed for a shape that the file does not allow where it leaves it open."""
    declared = abi.integers(tensor.dims_signature)
    if declared and (
        len(declared) != len(shape)
        or any(size not in (-1, found) for size, found in zip(declared, shape, strict=True))
    ):
        raise CompilationFailed(
            f"it gives tensor {index} the shape {shape}, and the model {declared}"
        )


def delegate_at(address: int) -> Delegate | None:
    """Return what stands behind a delegate; None for one with which we have nothing to do."""
    return _delegates.get(address)


@contextmanager
def standing_in(delegate: Delegate, graph: abi.TfLiteContext) -> Iterator[Any]:
    """Put `Delegate.replace` in the place of a graph's own function; yields that."""
    original = graph.replace_node_subsets_with_delegate_kernels
    graph.replace_node_subsets_with_delegate_kernels = REPLACE_NODE_SUBSETS
    _preparing.append(delegate)
    try:
        yield abi.ReplaceNodeSubsets(original)
    finally:
        _preparing.pop()
        graph.replace_node_subsets_with_delegate_kernels = original


_preparing: list[Delegate] = []
"""Libraries that are just being asked, the last one innermost."""
_delegates: dict[int, Delegate] = {}
_kernels: dict[tuple[int, int], Kernel] = {}


def _prepare_delegate(context: Context, address: int) -> int:
    delegate = _delegates.get(address)
    if delegate is None:
        abi.report(context, "a device that is gone was to take operators. ")
        return abi.ERROR
    begun = perf_counter_ns()
    try:
        delegate.prepare(context)
    except BaseException as error:
        return delegate.fail(context, TAKE_OVER, error)
    delegate.preparing_ns += perf_counter_ns() - begun
    return abi.OK


def _init_kernel(context: int, params: Any, length: int) -> int:
    delegate = _delegates.get(params.contents.delegate)
    if delegate is None:
        return 0
    try:
        return delegate.init(params.contents, context, length)
    except BaseException as error:
        # The interpreter does not look at what this returns: the kernel's prepare will fail.
        delegate.failure = as_device_error(error, CompilationFailed)
        return 0


def _replace_node_subsets(context: Context, registration: Any, nodes: Any, address: int) -> int:
    """Stand in the interpreter's place while a library's delegate is asked what it takes."""
    delegate = _preparing[-1] if _preparing else None
    if delegate is None:
        return abi.ERROR
    try:
        return delegate.replace(context, registration, abi.integers(nodes))
    except BaseException as error:
        return delegate.fail(context, TAKE_OVER, error)


def _prepare_kernel(context: Context, node: Node) -> int:
    kernel = _kernels.get((node.contents.delegate, node.contents.user_data or 0))
    if kernel is None:
        return _unknown(context, node)
    delegate = _delegates[node.contents.delegate]
    begun = perf_counter_ns()
    try:
        kernel.prepare(context, node)
    except BaseException as error:
        return delegate.fail(context, PREPARE, error)
    delegate.failure = None
    if not delegate.runs:  # where sizes are known only in a run, each run prepares
        delegate.preparing_ns += perf_counter_ns() - begun
    return abi.OK


def _invoke_kernel(context: Context, node: Node) -> int:
    kernel = _kernels.get((node.contents.delegate, node.contents.user_data or 0))
    if kernel is None:
        return _unknown(context, node)
    delegate = _delegates[node.contents.delegate]
    begun = perf_counter_ns()
    try:
        kernel.invoke(context, node)
    except BaseException as error:
        return delegate.fail(context, RUN, error)
    delegate.failure = None
    delegate.runs += 1
    delegate.elapsed_ns += perf_counter_ns() - begun
    return abi.OK


def _unknown(context: Context, node: Node) -> int:
    delegate = _delegates.get(node.contents.delegate)
    if delegate is not None and delegate.failure is not None:
        abi.report(context, f"{delegate.name} failed: {delegate.failure}. ")
    else:
        abi.report(context, "the device of an operator is gone. ")
    return abi.ERROR


_functions = (
    abi.DelegatePrepare(_prepare_delegate),
    abi.ReplaceNodeSubsets(_replace_node_subsets),
    abi.KernelInit(_init_kernel),
    abi.KernelCall(_prepare_kernel),
    abi.KernelCall(_invoke_kernel),
)
(
    PREPARE_DELEGATE,
    REPLACE_NODE_SUBSETS,
    INIT_KERNEL,
    PREPARE_KERNEL,
    INVOKE_KERNEL,
) = (ctypes.cast(function, ctypes.c_void_p).value for function in _functions)
