"""The readers of model files as fuzz targets: bytes in, an outcome out; raises only for a fault.

In the form of ``tests.fuzz.wire.targets``, with mutators that know the format.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from loader_service.runtime.failures import RuntimeFailure
from loader_service.runtime.flatbuffer import MalformedModel
from loader_service.runtime.inspection import inspect_model
from loader_service.runtime.summary import to_json
from loader_service.runtime.verifier.policy import PROFILES
from loader_service.runtime.verifier.verify import verify
from tests.fuzz.models.forked import MEMORY_BYTES, compute, end_of, interpreter
from tests.fuzz.models.mutants import Original, edited, flipped
from tests.fuzz.models.seeds import Seed, own_seeds

LARGEST_EXAMPLE = 4096
"""Bytes of a model that the search begins with: it finds more from less."""

SECONDS = 2.0
SECONDS_FOR_A_BYTE = 1e-4
"""Processor time that reading may take, code that counts its coverage included."""


class TooSlow(Exception):
    """A reader took longer than its input is long."""


def verifier(data: bytes) -> str:
    """Verify; what is accepted is run by the first runtime, in a process of its own."""
    began = time.process_time()
    try:
        verify(data, memory_bytes=MEMORY_BYTES)
    except RuntimeFailure as failure:
        _in_time(data, began)
        return type(failure).__name__
    _in_time(data, began)
    make = interpreter("litert")
    end = end_of(lambda: compute(make, data, len(data)))
    return f"accepted, and LiteRT: {end}"


def hardened(data: bytes) -> str:
    """Verify for a web origin; what is accepted there must be accepted elsewhere, too."""
    began = time.process_time()
    try:
        verify(data, operators="hardened")
    except RuntimeFailure as failure:
        _in_time(data, began)
        return type(failure).__name__
    assert "standard" in PROFILES
    verify(data)
    return "accepted"


def inspection(data: bytes) -> str:
    """Read what the file says of itself; the summary must be JSON."""
    began = time.process_time()
    try:
        summary = inspect_model(data)
    except MalformedModel:
        _in_time(data, began)
        return "MalformedModel"
    json.dumps(to_json(summary))
    _in_time(data, began)
    return "a summary"


def _in_time(data: bytes, began: float) -> None:
    taken = time.process_time() - began
    if taken > SECONDS + SECONDS_FOR_A_BYTE * len(data):
        raise TooSlow(f"{taken:.1f} seconds for {len(data)} bytes")


def structured(data: bytes, generator: random.Random) -> bytes:
    """Change numbers of a model by what they mean; bytes where the structure cannot be read."""
    original = Original(Seed("input", data))
    try:
        return edited(original, generator)[0]
    except (RuntimeFailure, IndexError):
        return flipped(original, generator)[0] if data else b"TFL3"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "verifier": verifier,
    "verifier, hardened": hardened,
    "inspection": inspection,
}

EXAMPLES: dict[str, tuple[bytes, ...]] = dict.fromkeys(
    TARGETS, tuple(seed.data for seed in own_seeds() if len(seed.data) <= LARGEST_EXAMPLE)
)
"""Good inputs of each target, to begin with."""

MUTATORS = dict.fromkeys(TARGETS, structured)
"""Where a mutator knows the format: bytes and a generator in, other bytes out."""
