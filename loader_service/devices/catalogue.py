"""Which devices there can be, by name: what the broker knows of them without importing one.

An operator enables devices; a caller chooses among the enabled ones. The standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from loader_service.sandbox.granted_calls import (
    DEVICE_NODES,
    EXECUTABLE_MEMORY,
    NUMA_IS_REFUSED,
    OWN_FILE,
)
from loader_service.sandbox.grants import NOTHING, Grants

REFERENCE = "reference"
XNNPACK = "xnnpack"
OPENVINO = "openvino"
EXTERNAL = "external"
ALWAYS = (REFERENCE, XNNPACK)
"""Devices that need no grant, and are therefore enabled for everybody."""

MOST_OPTIONS = 256
"""What TFLite's own loader of external delegates passes on at most."""

MORE_TASKS = 8
"""Tasks for a device beside twice the threads that it was seen to have: a model may have it start
more than the one of its self-test did."""

OPENVINO_PARTITIONS = 16
"""Most partitions of a model that OpenVINO gets."""
OPENVINO_TASKS = 2
"""Tasks that it needs for each of them: one that runs it, and one that would tell of its end."""

MOST_NODES = 16
DEVICE_DIRECTORY = "/dev/"

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class DeviceMissing(Exception):
    """A device is not on this host, or was disabled; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Enabled:
    """A device that the operator has enabled: a value of the policy."""

    name: str
    """``"openvino"``, ``"external:coral"``."""
    library: str = ""
    """The shared library of an external one, an absolute path."""
    options: tuple[tuple[str, str], ...] = ()
    """Handed to an external one when it is created, in this order."""
    nodes: tuple[str, ...] = ()
    """Device nodes that its workers may open, by absolute paths."""
    disabled: str = ""
    """Why it is not used although it is enabled: what its self-test found."""
    threads: int = 0
    """How many threads of its own it had at the end of its self-test."""
    afresh: bool = False
    """Whether it had some as soon as it was loaded."""

    @property
    def kind(self) -> str:
        """What comes before the colon: a name in ``KINDS``."""
        return self.name.partition(":")[0]

    def to_fields(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` wrote."""
        options = tuple((str(key), str(value)) for key, value in fields["options"])
        nodes = tuple(map(str, fields["nodes"]))
        found = (fields["disabled"], fields["threads"], fields["afresh"])
        return cls(fields["name"], fields["library"], options, nodes, *found)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of all devices of a kind before any is imported."""

    module: str
    """Has ``open_devices(enabled: Enabled, library: Library) -> Sequence[Device]``, with the
    runtime's `Library`; a worker that was ordered to have the device calls it before it locks
    itself down, and there it imports and opens all that it needs. Raises `DeviceMissing`."""
    honours: frozenset[str]
    """Options that mean something to it; see ``options``."""
    grants: Callable[[Enabled], Grants]
    """What its workers need. Raises `DeviceMissing` where it is not installed."""


def no_grants(enabled: Enabled) -> Grants:
    """Say that a plain worker will do."""
    del enabled
    return Grants()


def library_is_there(enabled: Enabled) -> Grants:
    """Say that a plain worker will do, but for device nodes: it loads the library before."""
    if not os.path.isfile(enabled.library):
        raise DeviceMissing(f"the library of {enabled.name} is not there: {enabled.library}")
    for node in enabled.nodes:
        if not _is_device_node(node):
            raise DeviceMissing(f"{enabled.name} needs {node}, which is no device node here")
    if not enabled.nodes:
        return Grants()
    return Grants(device_nodes=enabled.nodes, system_calls=(DEVICE_NODES,))


def openvino_grants(enabled: Enabled) -> Grants:
    """Say what OpenVINO needs: it makes machine code, reads files only, and has threads of its own.

    Its pool has about a thread for each processor, and so has its compiler, whatever the number of
    threads that compute; beside those each partition has its own.
    """
    del enabled
    found = find_spec(OPENVINO)
    if found is None:
        raise DeviceMissing("OpenVINO is not installed: pip install 'model-loader[openvino]'")
    return Grants(
        system_calls=(EXECUTABLE_MEMORY, OWN_FILE, NUMA_IS_REFUSED),
        file="partition.tflite",
        empty_files=_reader_of_compiled(found.submodule_search_locations or ()),
        tasks=MORE_TASKS + 2 * (os.cpu_count() or 1) + OPENVINO_TASKS * OPENVINO_PARTITIONS,
    )


def _is_device_node(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _reader_of_compiled(folders: Iterable[str]) -> tuple[str, ...]:
    """Return OpenVINO's library that reads compiled partitions.

    The worker has it loaded, but OpenVINO looks for its name before each use.
    """
    found = (Path(folder, "libs").glob("libopenvino_ir_frontend.so*") for folder in folders)
    return tuple(sorted(str(path) for paths in found for path in paths))


PARTITIONED = frozenset({"max_number_delegated_partitions", "min_nodes_per_partition"})
"""Options that mean something to every device that is given partitions."""
KINDS: Mapping[str, Kind] = {
    REFERENCE: Kind(
        "loader_service.devices.reference", frozenset({"disallow_nnapi_cpu"}), no_grants
    ),
    XNNPACK: Kind("loader_service.devices.xnnpack", frozenset(), no_grants),
    OPENVINO: Kind(
        "loader_service.devices.openvino",
        PARTITIONED | {"allow_fp16", "cache_token"},
        openvino_grants,
    ),
    EXTERNAL: Kind("loader_service.devices.external", PARTITIONED, library_is_there),
}
"""By what a device's name begins with."""

PREFERENCES = frozenset({"accelerator_name", "execution_preference"})
"""Options that the choice of devices itself honours."""


def enabled_from_text(text: str) -> Enabled:
    """Read ``NAME``, or ``external:NAME=LIBRARY[,/dev/NODE]...[,KEY=VALUE]...``.

    Raises ValueError.
    """
    name, _, value = text.partition("=")
    library, *more = value.split(",")
    nodes = tuple(item for item in more if item.startswith(DEVICE_DIRECTORY))
    options = [item for item in more if item not in nodes]
    kind, colon, own = name.partition(":")
    if kind not in KINDS or (kind == EXTERNAL) != bool(colon):
        names = ", ".join(
            f"{known}:NAME=LIBRARY[,/dev/NODE]...[,KEY=VALUE]..." if known == EXTERNAL else known
            for known in KINDS
        )
        raise ValueError(f"no device is called {name!r}; there are {names}")
    if (kind == EXTERNAL) != bool(library):
        wrong = "takes no library" if library else f"needs a library: {name}=/path/to/library.so"
        raise ValueError(f"device {name!r} {wrong}")
    if kind == EXTERNAL and not _NAME.fullmatch(own):
        raise ValueError(f"{own!r} is no name of a device: lower-case letters, digits and _.-")
    if library and not os.path.isabs(library):
        raise ValueError(
            f"the library of device {name!r} must be an absolute path, not {library!r}"
        )
    if len(options) > MOST_OPTIONS:
        raise ValueError(f"device {name!r} has {len(options)} options, more than {MOST_OPTIONS}")
    for node in nodes:
        if os.path.normpath(node) != node or "\0" in node:
            raise ValueError(f"a device node of device {name!r} must be a plain path, not {node!r}")
    if len(set(nodes)) != len(nodes) or len(nodes) > MOST_NODES:
        raise ValueError(f"device {name!r} needs each node once, and at most {MOST_NODES}")
    pairs = []
    for option in options:
        key, equals, setting = option.partition("=")
        if not key or not equals or "\0" in option:
            raise ValueError(f"an option of device {name!r} must be KEY=VALUE, not {option!r:.100}")
        pairs.append((key, setting))
    return Enabled(name, library, tuple(pairs), nodes)


def enabled_devices(texts: Iterable[str]) -> tuple[Enabled, ...]:
    """Read what an operator has enabled, beside the CPU's; raises ValueError."""
    found = {}
    for text in texts:
        device = enabled_from_text(text)
        if device.name in found:
            raise ValueError(f"the device {device.name!r} is enabled twice")
        found[device.name] = device
    return tuple(device for name, device in found.items() if name not in ALWAYS)


def grants_of(enabled: Enabled) -> Grants:
    """Return what the workers of a device need.

    Raises DeviceMissing where it is not installed, or is disabled.
    """
    if enabled.disabled:
        raise DeviceMissing(enabled.disabled)
    grants = KINDS[enabled.kind].grants(enabled)
    if not enabled.threads:
        return grants
    return grants | Grants(tasks=MORE_TASKS + 2 * enabled.threads, afresh=enabled.afresh)


def grants_together(devices: Iterable[Enabled]) -> Grants:
    """Return what a worker needs that has all of these: nothing for those that are missing."""
    together = NOTHING
    for device in devices:
        with suppress(DeviceMissing):
            together |= grants_of(device)
    return together
