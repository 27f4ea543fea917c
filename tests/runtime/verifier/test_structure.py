"""Broken files are refused with a typed error, whatever is broken; the work is bounded."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from loader_service.runtime import schema
from loader_service.runtime.failures import InvalidModel, RuntimeFailure
from loader_service.runtime.verifier.graph import Model
from loader_service.runtime.verifier.structure import MAXIMUM_TABLES, Structure
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import hostile, small, stateful
from loader_service.writer.encode import encode
from loader_service.writer.warm_up import warm_up_model

MODELS = {
    "add": small.add(),
    "signatures": small.two_signatures(),
    "variables": stateful.counter(),
    "layers": warm_up_model(),
}


def outcome(model: bytes) -> str:
    """How the verifier ends: only typed failures leave it."""
    try:
        verify(model)
    except RuntimeFailure as failure:
        return type(failure).__name__
    return "accepted"


@pytest.mark.parametrize("name", MODELS)
def test_every_truncation_is_refused(name: str) -> None:
    model = MODELS[name]
    assert outcome(model) == "accepted"
    ends = Counter(outcome(model[:length]) for length in range(len(model)))
    # Zero bytes at the end may only fill the file up.
    assert ends["accepted"] <= 16, ends


@pytest.mark.parametrize("name", MODELS)
def test_flipped_bytes_raise_nothing_but_typed_failures(name: str) -> None:
    generator = random.Random(name)
    ends: Counter[str] = Counter()
    for _ in range(1000):
        mutant = bytearray(MODELS[name])
        for _ in range(generator.randint(1, 16)):
            mutant[generator.randrange(len(mutant))] = generator.randrange(256)
        ends[outcome(bytes(mutant))] += 1
    assert ends["InvalidModel"] > 300, ends


@pytest.mark.parametrize("name", MODELS)
def test_every_offset_may_be_wrong(name: str) -> None:
    """Each aligned word becomes, in turn, the worst of numbers."""
    model = MODELS[name]
    for place in range(0, len(model) - 4, 4):
        for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(model)):
            outcome(model[:place] + struct.pack("<I", value) + model[place + 4 :])


def test_offsets_that_share_a_target_are_counted() -> None:
    """Subgraphs × tensors that are all one: 2 MB of file that stand for billions of tables."""
    values = {
        "version": 3,
        "subgraphs": [{"tensors": [{}] * 1}],
        "buffers": [{}],
    }
    data = encode(schema.MODEL, values, schema.FILE_IDENTIFIER)
    record = Model(data)
    assert len(record.subgraphs[0].tensors) == 1
    with pytest.raises(InvalidModel, match=f"more than {MAXIMUM_TABLES} tables"):
        Structure(_shared_tables(1000)).root(schema.MODEL)


def _shared_tables(count: int) -> bytes:
    """A model of `count` subgraph offsets to one subgraph, of `count` tensor offsets to one."""
    # Vtables: model (version, operator_codes, subgraphs), subgraph (tensors), tensor (nothing).
    vtables = struct.pack("<5H", 10, 8, 0, 0, 4) + struct.pack("<3H", 6, 8, 4)
    vtables += struct.pack("<2H", 4, 4)
    head = struct.pack("<I4s", 8 + len(vtables), b"TFL3") + vtables
    assert len(head) % 4 == 0
    model_at = len(head)
    subgraph_at, tensor_at = model_at + 8, model_at + 16
    vector_at = tensor_at + 4
    tensors_at = vector_at + 4 + 4 * count
    parts = [
        head,
        struct.pack("<iI", model_at - 8, vector_at - (model_at + 4)),
        struct.pack("<iI", subgraph_at - 18, tensors_at - (subgraph_at + 4)),
        struct.pack("<i", tensor_at - 24),
        struct.pack("<I", count),
    ]
    # Offsets are unsigned, so what is pointed to has to come after: copy the tables behind.
    behind = tensors_at + 4 + 4 * count
    shared_subgraph, shared_tensor = behind, behind + 8
    parts += [
        struct.pack("<I", shared_subgraph - (vector_at + 4 + 4 * number)) for number in range(count)
    ]
    parts.append(struct.pack("<I", count))
    parts += [
        struct.pack("<I", shared_tensor - (tensors_at + 4 + 4 * number)) for number in range(count)
    ]
    # The subgraph's own vector of tensors has to lie behind it as well.
    own_at = shared_tensor + 4
    parts.append(struct.pack("<iI", shared_subgraph - 18, own_at - (shared_subgraph + 4)))
    parts.append(struct.pack("<i", shared_tensor - 24))
    last = own_at + 4 + 4 * count
    parts.append(struct.pack("<I", count))
    parts += [struct.pack("<I", last - (own_at + 4 + 4 * number)) for number in range(count)]
    parts.append(struct.pack("<i", last - 24))
    return b"".join(parts)


def test_refusals_say_where() -> None:
    with pytest.raises(InvalidModel, match="schema version is 4, not 3"):
        verify(hostile.wrong_schema_version())
    with pytest.raises(InvalidModel, match="no TFL3 at offset 4"):
        verify(hostile.text_instead())
    with pytest.raises(InvalidModel, match="root table is at 2147483632"):
        verify(hostile.root_outside())
    with pytest.raises(InvalidModel, match="no subgraph"):
        verify(hostile.no_subgraphs())
