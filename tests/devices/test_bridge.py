"""Our delegate in a live interpreter: executables in Python run parts of a model."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from loader_service.devices import delegate as mechanism
from loader_service.devices import tflite_abi as abi
from loader_service.devices.bridge import apply
from loader_service.devices.delegate import Delegate
from loader_service.devices.device import (
    Array,
    CompilationFailed,
    DeadlineMissed,
    DeviceError,
    ExecutionFailed,
)
from loader_service.devices.kernel_delegate import KernelDelegate
from loader_service.devices.partition import partition_of
from loader_service.devices.reading import read_view
from loader_service.runtime.native import Library
from tests.devices.running import Running
from tests.devices.split_model import FIRST, SECOND, SHAPE, expected, split_model

X = np.array([[-2, -1, 0, 3]], np.float32)


class Honest:
    """Computes what the partition computes, whichever of the two it is."""

    cache_hit = False

    def __init__(self, nodes: Sequence[int]) -> None:
        self.first = tuple(nodes) == FIRST
        self.prepared: list[tuple[tuple[int, ...], ...]] = []
        self.runs = 0

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        self.prepared.append(tuple(shapes))
        return [shapes[0]]

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        (x,), (y,) = inputs, outputs
        y[...] = (x + 1) * 2 if self.first else (x + 3) * 2 + x
        self.runs += 1

    def close(self) -> None:
        """Nothing to let go of."""


class Failing(Honest):
    """Raises when it is made ready, or run."""

    def __init__(self, error: BaseException, *, running: bool) -> None:
        super().__init__(FIRST)
        self.error, self.running = error, running

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        if not self.running:
            raise self.error
        return super().prepare(shapes)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        raise self.error


class Shaped(Honest):
    """Says of its output that it is of some other shape."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__(FIRST)
        self.shapes = shapes

    def prepare(self, shapes: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
        return self.shapes


class Applied(Running):
    """An interpreter with delegates, ended in the right order."""

    def __init__(self, library: Library, data: bytes, *executables: Honest) -> None:
        self.data = data  # the interpreter reads it there
        model = read_view(data)
        self.native = library.create(data, threads=1, resolver=1)
        self.delegates: list[KernelDelegate] = []
        for executable in executables:
            nodes = FIRST if executable.first else SECOND
            partition = partition_of(model, nodes)
            delegate = apply(model, partition, executable, f"device little for {len(nodes)}")
            assert isinstance(delegate, KernelDelegate)
            self.delegates.append(delegate)
            self.native.ModifyGraphWithDelegate(delegate.address)

    def close(self) -> None:
        del self.native
        for delegate in self.delegates:
            delegate.close()


def test_partitions_run_in_the_interpreter_and_the_rest_on_the_runtimes_kernels(
    library: Library,
) -> None:
    first, second = Honest(FIRST), Honest(SECOND)
    applied = Applied(library, split_model(), first, second)
    for _ in range(3):
        np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    assert (first.runs, second.runs) == (3, 3)
    assert [delegate.runs for delegate in applied.delegates] == [3, 3]
    assert all(delegate.elapsed_ns > 0 for delegate in applied.delegates)
    # Ours for two pieces; one of XNNPACK's for the operator between them, where it takes it.
    assert applied.names().count("DELEGATE") in (2, 3)
    # The same shapes are prepared once, however often the interpreter asks.
    assert first.prepared == [(SHAPE,)]
    assert [delegate.failure for delegate in applied.delegates] == [None, None]
    addresses = {delegate.address for delegate in applied.delegates}
    applied.close()
    assert addresses.isdisjoint(mechanism._delegates)
    assert not [key for key in mechanism._kernels if key[0] in addresses]


def test_other_shapes_reach_the_executable(library: Library) -> None:
    first = Honest(FIRST)
    applied = Applied(library, split_model(open_batch=True), first)
    wide = np.arange(12, dtype=np.float32).reshape(3, 4) / 4
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    np.testing.assert_allclose(applied.run(wide), expected(wide), rtol=1e-6)
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    assert first.prepared == [(SHAPE,), ((3, 4),), (SHAPE,)]
    applied.close()


@pytest.mark.parametrize("error", [ValueError("no such shape"), CompilationFailed("not today")])
def test_an_exception_at_preparing_is_the_interpreters_error(
    library: Library, error: Exception
) -> None:
    applied = Applied(library, split_model(), Failing(error, running=False))
    with pytest.raises(
        RuntimeError, match=r"device little for 2 could not prepare: .*(shape|today)"
    ):
        applied.run(X)
    assert type(applied.delegates[0].failure) is CompilationFailed
    applied.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("by nothing"), ExecutionFailed),
        (ExecutionFailed("the queue is full"), ExecutionFailed),
        (DeadlineMissed("too late"), DeadlineMissed),
        (KeyboardInterrupt(), ExecutionFailed),
        (SystemExit(0), ExecutionFailed),
    ],
)
def test_an_exception_at_running_is_the_interpreters_error(
    library: Library, error: BaseException, kind: type[DeviceError]
) -> None:
    executable = Failing(error, running=True)
    applied = Applied(library, split_model(), executable)
    with pytest.raises(RuntimeError, match="device little for 2 could not run"):
        applied.run(X)
    assert type(applied.delegates[0].failure) is kind
    assert applied.delegates[0].runs == 0
    # The interpreter can go on, and what went wrong is forgotten by what goes well.
    executable.run = Honest(FIRST).run  # type: ignore[method-assign]
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    assert applied.delegates[0].failure is None
    applied.close()


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([], "0 shapes came for 1 outputs"),
        ([(1, 4), (1, 4)], "2 shapes came for 1 outputs"),
        ([(-1, 4)], "cannot have the shape"),
        ([(1 << 40,)], "cannot have the shape"),
    ],
)
def test_impossible_shapes_do_not_reach_the_allocator(
    library: Library, shapes: Sequence[tuple[int, ...]], words: str
) -> None:
    applied = Applied(library, split_model(), Shaped(*shapes))
    with pytest.raises(RuntimeError, match=words):
        applied.run(X)
    applied.close()


def test_nodes_that_the_interpreter_would_cut_are_refused(library: Library) -> None:
    data = split_model()
    model = read_view(data)
    # Nodes 1 and 3 with node 2 between them: no order runs both at once.
    delegate = apply(model, partition_of(model, (1, 3)), Honest(FIRST), "device odd")
    native = library.create(data, threads=1, resolver=1)
    with pytest.raises((RuntimeError, ValueError), match="cut the partition into 2 pieces"):
        native.ModifyGraphWithDelegate(delegate.address)
    assert isinstance(delegate.failure, CompilationFailed)
    # The graph is as it was.
    native.AllocateTensors()
    native.Invoke()
    del native
    delegate.close()


def test_an_interpreter_that_outlives_its_delegate_gets_an_error(library: Library) -> None:
    applied = Applied(library, split_model(), Honest(FIRST))
    applied.run(X)
    applied.delegates[0].close()
    with pytest.raises(RuntimeError, match="the device of an operator is gone"):
        applied.native.Invoke()
    applied.close()


def test_a_delegate_that_is_not_known_changes_nothing(library: Library) -> None:
    delegate = Delegate("device nobody")
    structure = abi.TfLiteDelegate(prepare=mechanism.PREPARE_DELEGATE, flags=1)
    native = library.create(split_model(), threads=1, resolver=1)
    with pytest.raises((RuntimeError, ValueError), match="a device that is gone"):
        native.ModifyGraphWithDelegate(ctypes.addressof(structure))
    del delegate, native
