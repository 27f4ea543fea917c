"""The C structures that TFLite's interpreter and its delegates share, as ctypes.

Neither runtime's wheel carries headers. The layout has been the same from TFLite 2.14 to LiteRT
2.4; it is no promise of theirs, so `self_test` compares it with a live interpreter before any
device is used. The names are TFLite's. Pointers that nothing here follows are plain addresses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from enum import IntEnum, IntFlag

OK = 0
ERROR = 1

BUILTIN_DELEGATE = 51
"""``kTfLiteBuiltinDelegate``: what an operator is called that stands for a delegate's."""


class DelegateFlags(IntFlag):
    """What a delegate can do."""

    ALLOW_DYNAMIC_TENSORS = 1
    """Without it the graph cannot be resized any more."""
    REQUIRE_PROPAGATED_SHAPES = 2


class AllocationType(IntEnum):
    """Where a tensor's memory comes from."""

    NONE = 0
    MMAP_RO = 1
    ARENA_RW = 2
    ARENA_RW_PERSISTENT = 3
    DYNAMIC = 4


class TfLiteIntArray(ctypes.Structure):
    """A count, and so many integers behind it; see `integers` and `make_integers`."""

    _fields_ = (("size", ctypes.c_int),)


IntArrayPointer = ctypes.POINTER(TfLiteIntArray)


class TfLiteQuantizationParams(ctypes.Structure):
    """The older way to say a tensor's scale."""

    _fields_ = (("scale", ctypes.c_float), ("zero_point", ctypes.c_int32))


class TfLiteQuantization(ctypes.Structure):
    """The newer way."""

    _fields_ = (("type", ctypes.c_int), ("params", ctypes.c_void_p))


class TfLiteTensor(ctypes.Structure):
    """A tensor; the context holds all of a subgraph's in one array."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("dims", IntArrayPointer),
        ("params", TfLiteQuantizationParams),
        ("allocation_type", ctypes.c_int),
        ("bytes", ctypes.c_size_t),
        ("allocation", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("delegate", ctypes.c_void_p),
        ("buffer_handle", ctypes.c_int),
        ("data_is_stale", ctypes.c_bool),
        ("is_variable", ctypes.c_bool),
        ("quantization", TfLiteQuantization),
        ("sparsity", ctypes.c_void_p),
        ("dims_signature", IntArrayPointer),
    )


class TfLiteNode(ctypes.Structure):
    """One operator of a graph."""

    _fields_ = (
        ("inputs", IntArrayPointer),
        ("outputs", IntArrayPointer),
        ("intermediates", IntArrayPointer),
        ("temporaries", IntArrayPointer),
        ("user_data", ctypes.c_void_p),
        ("builtin_data", ctypes.c_void_p),
        ("custom_initial_data", ctypes.c_void_p),
        ("custom_initial_data_size", ctypes.c_int),
        ("delegate", ctypes.c_void_p),
        ("might_have_side_effect", ctypes.c_bool),
    )


class TfLiteRegistration(ctypes.Structure):
    """A kernel; handed over by value. The addresses are of functions, or None."""

    _fields_ = (
        ("init", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("invoke", ctypes.c_void_p),
        ("profiling_string", ctypes.c_void_p),
        ("builtin_code", ctypes.c_int32),
        ("custom_name", ctypes.c_char_p),
        ("version", ctypes.c_int),
        ("registration_external", ctypes.c_void_p),
        ("async_kernel", ctypes.c_void_p),
        ("inplace_operator", ctypes.c_uint64),
    )


class TfLiteDelegate(ctypes.Structure):
    """A delegate, as the interpreter sees it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("prepare", ctypes.c_void_p),
        ("copy_from_buffer_handle", ctypes.c_void_p),
        ("copy_to_buffer_handle", ctypes.c_void_p),
        ("free_buffer_handle", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("opaque_delegate_builder", ctypes.c_void_p),
    )


class TfLiteDelegateParams(ctypes.Structure):
    """What a delegate's kernel is made for."""

    _fields_ = (
        ("delegate", ctypes.c_void_p),
        ("nodes_to_replace", IntArrayPointer),
        ("input_tensors", IntArrayPointer),
        ("output_tensors", IntArrayPointer),
    )


class TfLiteContext(ctypes.Structure):
    """A subgraph, as delegates and kernels see it; its later fields are needed by nobody here."""

    _fields_ = (
        ("tensors_size", ctypes.c_size_t),
        ("get_execution_plan", ctypes.c_void_p),
        ("tensors", ctypes.POINTER(TfLiteTensor)),
        ("impl", ctypes.c_void_p),
        ("resize_tensor", ctypes.c_void_p),
        ("report_error", ctypes.c_void_p),
        ("add_tensors", ctypes.c_void_p),
        ("get_node_and_registration", ctypes.c_void_p),
        ("replace_node_subsets_with_delegate_kernels", ctypes.c_void_p),
        ("recommended_num_threads", ctypes.c_int),
        ("get_external_context", ctypes.c_void_p),
        ("set_external_context", ctypes.c_void_p),
        ("allow_fp32_relax_to_fp16", ctypes.c_bool),
        ("profiler", ctypes.c_void_p),
        ("allocate_persistent_buffer", ctypes.c_void_p),
        ("allocate_buffer_for_eval", ctypes.c_void_p),
        ("request_scratch_buffer_in_arena", ctypes.c_void_p),
        ("get_scratch_buffer", ctypes.c_void_p),
        ("resize_tensor_explicit", ctypes.c_void_p),
        ("preview_delegate_partitioning", ctypes.c_void_p),
        ("get_tensor", ctypes.c_void_p),
        ("get_eval_tensor", ctypes.c_void_p),
        ("get_model_metadata", ctypes.c_void_p),
        ("acquire_subgraph_context", ctypes.c_void_p),
    )


ContextPointer = ctypes.POINTER(TfLiteContext)
NodePointer = ctypes.POINTER(TfLiteNode)
ParamsPointer = ctypes.POINTER(TfLiteDelegateParams)
RegistrationPointer = ctypes.POINTER(TfLiteRegistration)
TensorPointer = ctypes.POINTER(TfLiteTensor)

DelegatePrepare = ctypes.CFUNCTYPE(ctypes.c_int, ContextPointer, ctypes.c_void_p)
KernelInit = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(TfLiteDelegateParams), ctypes.c_size_t
)
KernelCall = ctypes.CFUNCTYPE(ctypes.c_int, ContextPointer, NodePointer)
"""``prepare`` and ``invoke`` of a registration."""
GetExecutionPlan = ctypes.CFUNCTYPE(ctypes.c_int, ContextPointer, ctypes.POINTER(IntArrayPointer))
GetNodeAndRegistration = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ContextPointer,
    ctypes.c_int,
    ctypes.POINTER(NodePointer),
    ctypes.POINTER(RegistrationPointer),
)
ReplaceNodeSubsets = ctypes.CFUNCTYPE(
    ctypes.c_int, ContextPointer, TfLiteRegistration, IntArrayPointer, ctypes.c_void_p
)
PreviewDelegatePartitioning = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ContextPointer,
    IntArrayPointer,
    ctypes.POINTER(ParamsPointer),
    ctypes.POINTER(ctypes.c_int),
)
AcquireSubgraphContext = ctypes.CFUNCTYPE(
    ctypes.c_int, ContextPointer, ctypes.c_int, ctypes.POINTER(ContextPointer)
)
ResizeTensor = ctypes.CFUNCTYPE(ctypes.c_int, ContextPointer, TensorPointer, IntArrayPointer)
ReportError = ctypes.CFUNCTYPE(None, ContextPointer, ctypes.c_char_p, ctypes.c_char_p)
"""Variadic in C; called with one format and one string, which every platform passes the same."""


_malloc = ctypes.CDLL(None).malloc
_malloc.restype = ctypes.c_void_p
_malloc.argtypes = [ctypes.c_size_t]


def integers(array: ctypes._Pointer[TfLiteIntArray]) -> tuple[int, ...]:
    """Read an array; a null pointer holds nothing."""
    if not array:
        return ()
    address = ctypes.addressof(array.contents) + ctypes.sizeof(ctypes.c_int)
    return tuple((ctypes.c_int * array.contents.size).from_address(address))


def make_integers(values: Iterable[int]) -> ctypes._Pointer[TfLiteIntArray]:
    """Make an array that the caller keeps: its memory goes with the pointer."""
    numbers = tuple(values)
    # An array of ints is laid out as the count and the integers behind it.
    memory = (ctypes.c_int * (1 + len(numbers)))(len(numbers), *numbers)
    return ctypes.cast(memory, IntArrayPointer)


def give_integers(values: Iterable[int]) -> ctypes._Pointer[TfLiteIntArray]:
    """Make an array that the interpreter takes over and frees; raises MemoryError."""
    numbers = tuple(values)
    address = _malloc(ctypes.sizeof(ctypes.c_int) * (1 + len(numbers)))
    if not address:
        raise MemoryError("no memory for a tensor's shape")
    memory = (ctypes.c_int * (1 + len(numbers))).from_address(address)
    memory[:] = [len(numbers), *numbers]
    return ctypes.cast(memory, IntArrayPointer)


def is_primary(context: ctypes._Pointer[TfLiteContext]) -> bool:
    """Whether a graph that a delegate is to prepare is the primary one.

    Interpreters give delegates the primary subgraph first, but not one that its name says to be for
    validation, or that stands for an operator of another: then the first is any other.
    """
    # What is acquired is not released: that would end the preparation of the graph itself.
    primary = ContextPointer()
    acquire = AcquireSubgraphContext(context.contents.acquire_subgraph_context)
    if acquire(context, 0, ctypes.byref(primary)) != OK:
        return False
    return ctypes.addressof(primary.contents) == ctypes.addressof(context.contents)


def report(context: ctypes._Pointer[TfLiteContext], message: str) -> None:
    """Say why something fails; the interpreter's exception carries it."""
    text = message.encode(errors="replace").replace(b"\0", b"?")
    ReportError(context.contents.report_error)(context, b"%s", text)
