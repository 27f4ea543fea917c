"""External delegates, in this process: asked, applied with what was chosen, and lying."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loader_service.devices import delegate as mechanism
from loader_service.devices.bridge import apply
from loader_service.devices.catalogue import DeviceMissing, Enabled
from loader_service.devices.device import (
    AppliedDelegate,
    Compilation,
    CompilationFailed,
    Device,
    DeviceError,
    ExecutionFailed,
)
from loader_service.devices.external import open_devices
from loader_service.devices.library_delegate import LibraryDelegate
from loader_service.devices.model_view import ModelView
from loader_service.devices.partition import partition_of
from loader_service.devices.reading import read_view
from loader_service.runtime.native import Library
from loader_service.writer.small import add, dynamic_output
from tests.devices.running import Running
from tests.devices.split_model import FIRST, NODES, SECOND, expected, split_model

X = np.array([[-2, -1, 0, 3]], np.float32)
LOGISTIC = NODES.index("LOGISTIC")


def opened(little: Path, library: Library, **options: str) -> Device:
    """The device of the tests' delegate, created with these options."""
    enabled = Enabled("external:little", str(little), tuple(options.items()))
    (device,) = open_devices(enabled, library)
    return device


def standing() -> list[LibraryDelegate]:
    """Return the libraries' delegates that have not ended."""
    return [it for it in mechanism._delegates.values() if isinstance(it, LibraryDelegate)]


class Applied(Running):
    """An interpreter in which a device has the given pieces of the model."""

    def __init__(
        self, device: Device, library: Library, *pieces: Sequence[int], open_batch: bool = False
    ) -> None:
        self.model: ModelView = read_view(split_model(open_batch=open_batch))
        self.native = library.create(self.model.data, threads=1, resolver=1)
        self.delegates: list[AppliedDelegate] = []
        for piece in pieces:
            partition = partition_of(self.model, piece)
            executable = device.compile(partition, Compilation(self.model))
            self.delegates.append(apply(self.model, partition, executable, device.name))

    def take(self) -> None:
        for delegate in self.delegates:
            delegate.follow(self.native)
            self.native.ModifyGraphWithDelegate(delegate.address)

    def close(self) -> None:
        """End both in order: the tests' delegate aborts if its kernels outlive it."""
        addresses = {delegate.address for delegate in self.delegates}
        del self.native
        for delegate in self.delegates:
            delegate.close()
        assert addresses.isdisjoint(mechanism._delegates)
        assert not [key for key in mechanism._kernels if key[0] in addresses]


@pytest.mark.parametrize(
    ("operators", "taken"),
    [("add,mul", {0, 1, 3, 4, 5}), ("add", {0, 3, 5}), ("mul", {1, 4}), ("none", set())],
)
def test_what_a_library_takes_is_found_by_asking(
    little: Path, library: Library, operators: str, taken: set[int]
) -> None:
    model = read_view(split_model())
    verdicts = opened(little, library, operators=operators).supported_operations(model)
    assert {node for node, verdict in enumerate(verdicts) if verdict.supported} == taken
    assert "does not take it" in verdicts[LOGISTIC].reason
    assert not standing()


def test_a_library_that_takes_fixed_sizes_only_is_told_from_open_ones(
    little: Path, library: Library
) -> None:
    device = opened(little, library, fault="fixed")
    with pytest.raises(DeviceError, match=r"^it could not be asked: \w.*-size|fixed sizes only"):
        device.supported_operations(read_view(dynamic_output()))
    assert not standing()


def test_its_version_is_its_files_own(little: Path, library: Library) -> None:
    device = opened(little, library)
    assert (device.name, len(device.version)) == ("external:little", 16)
    assert device.grants.nothing


@pytest.mark.parametrize("pieces", [(FIRST, SECOND), (SECOND,), ((0,),), ((1,), SECOND)])
def test_it_gets_the_chosen_nodes_and_no_others(
    little: Path, library: Library, pieces: Sequence[Sequence[int]]
) -> None:
    applied = Applied(opened(little, library), library, *pieces)
    applied.take()
    # Of all that it would take, one delegate for each piece, before any of XNNPACK's.
    assert applied.names()[len(NODES) :] == ["DELEGATE"] * len(pieces)
    for _ in range(2):
        np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    assert [delegate.runs for delegate in applied.delegates] == [2] * len(pieces)
    applied.close()


def test_it_follows_other_shapes(little: Path, library: Library) -> None:
    applied = Applied(opened(little, library), library, FIRST, SECOND, open_batch=True)
    applied.take()
    wide = np.arange(12, dtype=np.float32).reshape(3, 4) / 4
    for x in (X, wide, X):
        np.testing.assert_allclose(applied.run(x), expected(x), rtol=1e-6)
    applied.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("create", "makes no delegate: no hardware of that kind is here"),
        ("prepare", "Prepare ended with status 1"),
        ("stranger", r"takes nodes \[12345\] of a graph of 6"),
        ("opaque", "no Prepare of the kind"),
        ("no-prepare", "no Prepare of the kind"),
    ],
)
def test_a_library_that_cannot_be_asked_says_why(
    little: Path, library: Library, fault: str, words: str
) -> None:
    device = opened(little, library, fault=fault)
    with pytest.raises(DeviceError, match=words):
        device.supported_operations(read_view(split_model()))
    assert not standing()


def test_a_delegate_that_is_closed_first_ends_after_its_interpreter(
    little: Path, library: Library
) -> None:
    applied = Applied(opened(little, library), library, FIRST)
    applied.take()
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    (delegate,) = applied.delegates
    delegate.close()
    # Ended now, the tests' delegate would abort: its kernels live.
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    assert standing()
    del applied.native
    assert not standing()


def test_an_unknown_option_is_the_librarys_to_refuse(little: Path, library: Library) -> None:
    device = opened(little, library, colour="green")
    with pytest.raises(DeviceError, match="there is no such option"):
        device.supported_operations(read_view(split_model()))


def test_one_that_takes_other_nodes_than_it_said_is_refused(little: Path, library: Library) -> None:
    device = opened(little, library, operators="add")
    applied = Applied(device, library, FIRST)
    with pytest.raises((RuntimeError, ValueError), match=r"took the operators \[1\]"):
        applied.take()
    assert isinstance(applied.delegates[0].failure, CompilationFailed)
    # The graph is whole again.
    np.testing.assert_allclose(applied.run(X), expected(X), rtol=1e-6)
    applied.close()


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("kernel-prepare", CompilationFailed, "could not prepare: its kernel ended with status 1"),
        ("size", CompilationFailed, r"the shape \(1, 5\), and the model \(1, 4\)"),
        ("invoke", ExecutionFailed, "cannot run external:little could not run: its kernel"),
        ("late-size", ExecutionFailed, r"it made tensor \d+ \(8, 4\), which was \(1, 4\)"),
    ],
)
def test_a_lie_is_an_error_that_names_the_device(
    little: Path, library: Library, fault: str, kind: type[DeviceError], words: str
) -> None:
    applied = Applied(opened(little, library, fault=fault), library, FIRST)
    applied.take()
    with pytest.raises(RuntimeError, match=words):
        applied.run(X)
    assert type(applied.delegates[0].failure) is kind
    applied.close()


@pytest.mark.parametrize("path", ["/nowhere/libnothing.so", __file__])
def test_what_is_no_library_is_missing(library: Library, path: str) -> None:
    with pytest.raises(DeviceMissing, match="the library of external:x is of no use"):
        open_devices(Enabled("external:x", path), library)


def test_a_library_without_the_interface_is_missing(library: Library) -> None:
    with pytest.raises(DeviceMissing, match="tflite_plugin_create_delegate"):
        open_devices(Enabled("external:x", "libc.so.6"), library)


def test_nothing_is_destroyed_that_was_not_made(little: Path, library: Library) -> None:
    device = opened(little, library, fault="create")
    model = read_view(add())
    executable = device.compile(partition_of(model, [0]), Compilation(model))
    with pytest.raises(CompilationFailed, match="makes no delegate"):
        apply(model, partition_of(model, [0]), executable)
    # The tests' delegate crashes on a null pointer.
    device.plugin.destroy(0)  # type: ignore[attr-defined]
    executable.close()
