"""Tries out, in processes that may die, what devices rely on: the service's start asks for it.

``main`` forks a child for the C structures, and one for each device; what a child says, or how it
died, is the reason why those devices are left out. One that says nothing bad is in order; it also
says how many threads its device has started.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from loader_service.devices import tflite_abi as abi
from loader_service.devices.bridge import apply
from loader_service.devices.catalogue import EXTERNAL, KINDS, Enabled
from loader_service.devices.delegate import PREPARE_DELEGATE, Context, Delegate
from loader_service.devices.device import Array, Compilation, Device
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import partition_of
from loader_service.devices.partitioner import independent_subsets
from loader_service.devices.reading import read_view
from loader_service.runtime.kernels import Kernels
from loader_service.runtime.native import Library, NativeInterpreter
from loader_service.runtime.runtimes import find_runtime
from loader_service.sandbox import process
from loader_service.writer.warm_up import warm_up_model

STDOUT, STDERR = 1, 2
ABI = "abi"
"""Stands for the C structures among the devices' names."""
REASON_LENGTH = 1000
PIPE_BYTES = 65536
"""What a pipe holds, so that this is all of it."""
LINE_LENGTH = 200
TOLERANCE = 0.05
"""How far from the CPU's kernels a device may be, of their largest answer: devices compute in
reduced precision, and the answers of one that is broken are farther off."""
RESHAPE = 1
"""The node of the warm-up model that only moves data, so that the test's own kernel is simple."""
CODES = (3, 22, 9)
"""The warm-up model's operators, by their numbers."""

X = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) / 16


class Wrong(Exception):
    """Something is not as it must be."""


class Threads(NamedTuple):
    """The threads that a device has started beside the one that tests it."""

    loaded: int
    """As soon as it was loaded."""
    run: int
    """When it had run."""


class Found(NamedTuple):
    """What a test has found."""

    disabled: str = ""
    """Why the device, or every device, cannot be used."""
    threads_loaded: int = 0
    threads_run: int = 0
    """See `Threads`."""


def main(arguments: Sequence[str]) -> int:
    """Test the runtime ``arguments[0]`` and the devices of the JSON list ``arguments[1]``.

    ``arguments[2]`` is how many seconds each test may take. Writes one line to stdout: a JSON
    object with what was found of each; see `Found`.
    """
    process.set_parent_death_signal()
    # Libraries may print what they like: the answer goes where standard output was.
    answer = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    runtime = find_runtime(arguments[0])
    runtime.warm()
    library = runtime.library
    devices = [Enabled.from_fields(fields) for fields in json.loads(arguments[1])]
    seconds = float(arguments[2])
    found = {ABI: in_a_child(partial(check_structures, library), seconds)}
    for enabled in devices:
        if not found[ABI].disabled:
            found[enabled.name] = in_a_child(partial(check_device, enabled, library), seconds)
    with os.fdopen(answer, "w") as file:
        file.write(json.dumps({name: item._asdict() for name, item in found.items()}) + "\n")
    return 0


def in_a_child(test: Callable[[], Threads | None], seconds: float) -> Found:
    """Run a test in a process of its own; returns what it found, or why it failed."""
    reading, writing = os.pipe()
    hearing, speaking = os.pipe()
    # What nobody reads while the test runs must not stop a library that has much to say.
    for end in (reading, hearing, speaking):
        os.set_blocking(end, False)
    child = os.fork()
    if child == 0:
        os.dup2(speaking, STDOUT)
        os.dup2(speaking, STDERR)
        _be_a_child(test, writing)
    os.close(writing)
    os.close(speaking)
    # Not until the pipe ends: what a library leaves running may hold that open.
    over = os.pidfd_open(child)
    ready, _, _ = select.select([over], [], [], seconds)
    os.close(over)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)  # also if it has left its group; it is not reaped yet
    _, status = os.waitpid(child, 0)
    said, last_words = _rest_of(reading), _last_line(_rest_of(hearing))
    if not ready:
        return Found(f"its test was not over after {seconds:g} s{last_words}")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Found(f"its test ended by {name}{last_words}")
    if status:
        reason = said.decode(errors="replace")[:REASON_LENGTH]
        return Found(reason or "its test ended without a word")
    return Found("", *json.loads(said))


def _rest_of(end: int) -> bytes:
    """Read what a pipe holds, and close it."""
    said = b""
    with suppress(BlockingIOError):
        said = os.read(end, PIPE_BYTES)
    os.close(end)
    return said


def _last_line(said: bytes) -> str:
    """Return a library's last words, to be put behind a message."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    spoken = [line for line in lines if line]
    return f": {spoken[-1][:LINE_LENGTH]}" if spoken else ""


def check_structures(library: Library) -> None:
    """Compare the structures with a live interpreter, and run a kernel of ours in it.

    Raises Wrong, or whatever goes wrong by itself.
    """
    model = read_view(warm_up_model())
    plain = _answer(_interpreter(library, model))
    looking = _Looking(model)
    native = _interpreter(library, model)
    looking.follow(native)
    native.ModifyGraphWithDelegate(looking.address)
    if looking.failure is not None:
        raise Wrong(f"the interpreter's structures are not as expected: {looking.failure}")
    if not np.array_equal(_answer(native), plain):
        raise Wrong("a delegate that takes nothing changes the answer")
    native = _interpreter(library, model)
    partition = partition_of(model, [RESHAPE])
    delegate = apply(model, partition, _Reshape(model), "the test's device")
    delegate.follow(native)
    native.ModifyGraphWithDelegate(delegate.address)
    if not np.array_equal(_answer(native), plain):
        raise Wrong("a kernel of ours changes the answer")
    if delegate.runs != 1:
        raise Wrong(f"a kernel of ours ran {delegate.runs} times, and not once")


def check_device(enabled: Enabled, library: Library) -> Threads:
    """Load a device, and see what threads it starts; a library is asked and run, too.

    Raises Wrong, or whatever goes wrong by itself.
    """
    devices = import_module(KINDS[enabled.kind].module).open_devices(enabled, library)
    loaded = process.count_threads() - 1
    if enabled.kind == EXTERNAL:
        (device,) = devices
        check_answer(device, library)
    return Threads(loaded, process.count_threads() - 1)


def check_answer(device: Device, library: Library) -> None:
    """Ask a device about the warm-up model, and run what it takes.

    Raises Wrong, or whatever goes wrong by itself.
    """
    model = read_view(warm_up_model())
    verdicts = device.supported_operations(model)
    taken = [verdict.supported for verdict in verdicts]
    subsets = [subset for subset in independent_subsets(model, taken) if subset.label]
    if not subsets:
        return
    plain = _answer(_interpreter(library, model))
    native = _interpreter(library, model)
    for subset in subsets:
        _take(device, model, subset.nodes, native)
    answer = _answer(native)
    if answer.shape != plain.shape or not np.all(
        np.abs(answer - plain) <= TOLERANCE * np.abs(plain).max()
    ):
        raise Wrong("its answer is far from that of the CPU's kernels")


def _take(
    device: Device, model: ModelView, nodes: Sequence[int], native: NativeInterpreter
) -> None:
    partition = partition_of(model, nodes)
    executable = device.compile(partition, Compilation(model))
    delegate = apply(model, partition, executable, device.name)
    delegate.follow(native)
    native.ModifyGraphWithDelegate(delegate.address)


class _Looking(Delegate):
    """Looks at a graph from inside, compares it with the file, and takes nothing."""

    def __init__(self, model: ModelView) -> None:
        super().__init__("the test's device")
        self._model = model
        self._structure = abi.TfLiteDelegate(
            prepare=PREPARE_DELEGATE, flags=int(abi.DelegateFlags.ALLOW_DYNAMIC_TENSORS)
        )
        self.register(ctypes.addressof(self._structure))

    def prepare(self, context: Context) -> None:
        graph = context.contents
        model = self._model
        _same("the primary subgraph", abi.is_primary(context), True)
        plan = abi.IntArrayPointer()
        abi.GetExecutionPlan(graph.get_execution_plan)(context, ctypes.byref(plan))
        _same("operators", abi.integers(plan), tuple(range(len(model.nodes))))
        if graph.tensors_size < len(model.tensors):  # kernels may have added some of their own
            raise Wrong(f"tensors: {graph.tensors_size}, and not {len(model.tensors)}")
        for tensor in model.tensors:
            seen = graph.tensors[tensor.index]
            where = f"tensor {tensor.index}"
            _same(f"{where}: shape", abi.integers(seen.dims), tensor.shape)
            _same(f"{where}: bytes", seen.bytes, 4 * tensor.elements)
            kind = abi.AllocationType.MMAP_RO if tensor.is_constant else abi.AllocationType.ARENA_RW
            _same(f"{where}: place", seen.allocation_type, kind)
        for node in model.nodes:
            found, kernel = abi.NodePointer(), abi.RegistrationPointer()
            get = abi.GetNodeAndRegistration(graph.get_node_and_registration)
            get(context, node.index, ctypes.byref(found), ctypes.byref(kernel))
            where = f"operator {node.index}"
            _same(f"{where}: inputs", abi.integers(found.contents.inputs), node.inputs)
            _same(f"{where}: outputs", abi.integers(found.contents.outputs), node.outputs)
            _same(f"{where}: code", kernel.contents.builtin_code, CODES[node.index])


class _Reshape:
    """The reshape of the warm-up model, as an executable."""

    cache_hit = False

    def __init__(self, model: ModelView) -> None:
        (output,) = model.nodes[RESHAPE].outputs
        self._shape = model.tensors[output].shape

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        return [self._shape]

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        outputs[0][...] = inputs[0].reshape(self._shape)

    def close(self) -> None:
        pass


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Wrong(f"{what}: {found}, and not {expected}")


def _interpreter(library: Library, model: ModelView) -> NativeInterpreter:
    return library.create(model.data, threads=1, resolver=Kernels.BUILTIN.value)


def _answer(native: NativeInterpreter) -> Array:
    native.AllocateTensors()
    native.SetTensor(int(native.InputIndices()[0]), X)
    native.Invoke()
    answer: Array = native.GetTensor(int(native.OutputIndices()[0]))
    return answer


def _be_a_child(test: Callable[[], Threads | None], writing: int) -> None:
    """Do a test and end; never returns, and runs nobody's exit handlers."""
    status = 1
    try:
        process.set_parent_death_signal()
        # What the library leaves running is ended with it.
        os.setpgid(0, 0)
        os.write(writing, json.dumps(test() or Threads(0, 0)).encode())
        status = 0
    except BaseException as error:
        text = str(error)
        os.write(writing, (text if text else type(error).__name__).encode()[:REASON_LENGTH])
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
