"""A device of the tests that compiles, counts how often, and keeps what it compiled if it may.

A blob is an order in plain text, and the kernel does what the blob says: so a test sees in the
answer which blob a partition runs from. It knows additions of a constant, one to a partition's end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from loader_service.devices import catalogue
from loader_service.devices.capabilities import Capabilities, Performance
from loader_service.devices.catalogue import PARTITIONED, Enabled, Kind, no_grants
from loader_service.devices.device import Compilation, Device
from loader_service.devices.partition import Partition
from loader_service.runtime.native import Library
from tests.devices.numpy_device import NumpyDevice, NumpyExecutable

NAME = "keeping"
HEAD = b"compiled:"


class KeepingDevice(NumpyDevice):
    """Compiles to a text; a blob that is none of its own is compiled anew."""

    def compile(self, partition: Partition, compilation: Compilation) -> NumpyExecutable:
        """Look into the cache, if there is one; the key names all that matters."""
        executable = super().compile(partition, compilation)
        cache = compilation.cache
        if cache is None:
            return executable
        facts = (self.name, self.version, partition.nodes, compilation.preference)
        key = hashlib.sha256(repr(facts).encode() + compilation.model.data).digest()
        blob = cache.get(key)
        executable.cache_hit = blob is not None and blob.startswith(HEAD)
        if not executable.cache_hit:
            cache.put(key, HEAD + bytes(100_000))
        return executable


def open_devices(enabled: Enabled, library: Library) -> Sequence[Device]:
    """Return the device."""
    del enabled, library
    figures = Capabilities(Performance(0.01, 0.01), {})
    return [KeepingDevice(NAME, capabilities=figures)]


def join_catalogue() -> None:
    """Let the catalogue of this process have the device."""
    kinds: Mapping[str, Kind] = catalogue.KINDS
    own = Kind(__name__, PARTITIONED | {"cache_token"}, no_grants)
    catalogue.KINDS = {**kinds, NAME: own}
