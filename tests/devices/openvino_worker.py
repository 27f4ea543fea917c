"""OpenVINO in a child that is locked down as a worker with that device, without a broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loader_service.devices.catalogue import OPENVINO, DeviceMissing, Enabled, grants_of
from loader_service.devices.device import Compilation, KernelExecutable
from loader_service.devices.model_view import ModelView
from loader_service.devices.openvino import OpenVinoDevice
from loader_service.devices.openvino_library import open_library
from loader_service.devices.partition import partition_of
from loader_service.sandbox import descriptors, empty_root, lockdown, namespaces, own_file, signals
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.own_file import OwnFile
from loader_service.sandbox.resource_limits import ResourceLimits
from tests.sandbox.sandboxed import CHILD_REPORT, Ending, become_ordinary, in_child
from tests.support.host import user_namespaces_usable

FILE_BYTES = 256 << 20
FILE_DESCRIPTOR = 5


def need_openvino() -> None:
    """Skip the calling test where OpenVINO is not installed or no worker can have its root.

    Nothing is imported: this process may have threads of gRPC's.
    """
    try:
        grants_of(Enabled(OPENVINO))
    except DeviceMissing as error:
        pytest.skip(str(error))
    if not user_namespaces_usable():
        pytest.skip("this host refuses user namespaces to this user")


def in_worker(work: Callable[[OpenVinoDevice], object]) -> Ending:
    """Run `work` with the device ``openvino:CPU``; what it returns goes through JSON.

    OpenVINO is imported here, before the fork, as a worker's birth does it. This process must
    never compile anything, else its children could not, nor have used gRPC, whose threads start
    anew in them: tests that call this are marked `forks`.
    """
    grants = grants_of(Enabled(OPENVINO))
    device = OpenVinoDevice(f"{OPENVINO}:CPU", "CPU", open_library(), grants)

    def child() -> object:
        become_ordinary()
        namespaces.enter_user_namespace()
        namespaces.enter_namespace(Layer.MOUNT_NAMESPACE)
        file = RootFile(grants.file, FILE_BYTES)
        descriptor = empty_root.enter_empty_root(file, empty=grants.empty_files)
        assert descriptor is not None
        kept = {0: 0, 1: 1, 2: 2, CHILD_REPORT: CHILD_REPORT, FILE_DESCRIPTOR: descriptor}
        descriptors.place(kept)
        own_file.give(OwnFile(file, FILE_DESCRIPTOR))
        signals.restore_defaults()
        lockdown.lock_down(
            PROCESS_LAYERS,
            ResourceLimits(file_bytes=FILE_BYTES, descriptors=FILE_DESCRIPTOR + 3),
            granted=grants.system_calls,
            file=FILE_DESCRIPTOR,
        )
        return work(device)

    return in_child(child)


def compile_whole(device: OpenVinoDevice, model: ModelView, **how: object) -> KernelExecutable:
    """Compile all nodes as one partition."""
    partition = partition_of(model, range(len(model.nodes)))
    executable = device.compile(partition, Compilation(model, **how))  # type: ignore[arg-type]
    assert isinstance(executable, KernelExecutable)
    return executable
