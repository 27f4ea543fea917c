"""A small part of the fuzzing of the wire, the same in each run; the volume is ``make fuzz``."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.fuzz.campaign import Fuzzer, Table
from tests.fuzz.wire.attaching import attaching
from tests.fuzz.wire.calls import SERVICE, UNARY, UPLOADS, calls
from tests.fuzz.wire.compiled import compiled
from tests.fuzz.wire.knocking import knocking
from tests.fuzz.wire.memories import BAD, GOOD
from tests.fuzz.wire.run import summary
from tests.fuzz.wire.scraping import scraping
from tests.fuzz.wire.steering import METHODS, steering
from tests.fuzz.wire.targets import TARGETS, decoding
from tests.fuzz.wire.to_broker import to_broker
from tests.fuzz.wire.to_client import ROADS, to_client
from tests.fuzz.wire.to_worker import to_worker
from tests.support.certificates import needs_openssl

SEED = 20


def outcomes(table: Table, count: int) -> set[str]:
    """Assert that so many inputs were given and nothing was found; returns the outcomes."""
    assert table.findings == []
    assert table.found == 0
    assert table.inputs == count
    return set(table.counts)


def each(names: Iterable[str], ends: Iterable[str]) -> set[str]:
    """All pairs of a name and an end."""
    return {f"{name}: {end}" for name in names for end in ends}


def test_the_readers_of_the_wire() -> None:
    found = outcomes(decoding(SEED, 1400), 1400)
    assert found >= each(TARGETS, ["refused"])
    assert found >= each(TARGETS.keys() - {"reply"}, ["read"])
    assert found >= each(["reply"], ["an answer", "a failure", "unfinished"])


def test_replies_of_workers() -> None:
    found = outcomes(to_client(SEED, 1500), 1500)
    assert found >= each(ROADS, ["answer", "done", "failure", "violation", "ended", "late"])


def test_what_workers_say_to_the_broker() -> None:
    found = outcomes(to_broker(SEED, 200), 200)
    assert found >= {"refused: protocol-violation", "refused: limit"}
    assert any(outcome.startswith("loaded") for outcome in found)
    assert any(outcome.startswith("inspected") for outcome in found)


def test_what_loading_workers_ask_and_give() -> None:
    table = compiled(SEED, 48)
    assert outcomes(table, 48) >= {"loaded", "refused: protocol-violation", "refused: limit"}
    assert table.facts["answers that an honest worker was given"] == 2


def test_a_blob_that_nobody_gave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    store = "loader_service.broker.compiled_store.CompiledStore.find"
    monkeypatch.setattr(store, lambda *_: b"!")
    assert compiled(SEED, 1).found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fuzz", "count", "expected"),
    [
        (
            attaching,
            300,
            {"welcome", "no answer", "refused: invalid-input"}
            | each(["offered"], GOOD)
            | each(["an offer refused"], [*BAD, "of another size"]),
        ),
        (
            calls,
            400,
            {"Compute: answered", "Compute: invalid-input", "Load: answered"}
            | each(["an offer", "a kept model"], ["loaded"])
            | {"an offer: invalid-input", "FindModel: answered", "FindModel: no such model"},
        ),
        (to_worker, 120, {"answer", "failure", "done", "the channel ended: no request"}),
        (
            steering,
            400,
            each(METHODS, ["answered", "invalid-input"]) - {"SetLimits: answered"}
            | {"SetLimits: answered, then loaded", "bytes: the connection ended"},
        ),
        (scraping, 200, {"200", "400", "404", "405", "no answer"}),
        pytest.param(
            knocking,
            150,
            each(["no TLS", "a damaged hello", "a damaged answer"], ["closed"])
            | each(["a damaged record", "other bytes within TLS"], ["closed"]),
            marks=needs_openssl,
        ),
    ],
)
def test_a_service(fuzz: Fuzzer, count: int, expected: set[str]) -> None:
    assert outcomes(fuzz(SEED, count), count) >= expected


def test_a_document_keeps_what_was_not_run_anew_on_that_day() -> None:
    def written(name: str, count: int, date: str, before: str) -> str:
        table = Table(name)
        table.counts["x"] = count
        return summary([table], {"date": date, "seed": 1}, before)

    first = written("Others", 1, "2026-01-01", "")
    both = written("Readers", 2, "2026-01-01", f"text\n\n{first}\n\nmore")
    again = written("Others", 3, "2026-01-01", f"text\n\n{both}\n\nmore | text")
    assert again.splitlines()[4:] == ["| Others | 3 | 0 |  |", "| Readers | 2 | 0 |  |"]
    assert written("Readers", 2, "2026-01-02", again).count("\n| Others") == 0


def test_every_method_of_the_service_is_called() -> None:
    methods = pb.DESCRIPTOR.services_by_name["ModelLoader"].methods
    assert {SERVICE + method.name for method in methods} == {
        SERVICE + "OpenSession",
        *UPLOADS,
        *(name for name in UNARY if name.startswith(SERVICE)),
    }


def test_a_lie_that_is_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not look at an answer's table takes wrong answers for right."""
    monkeypatch.setattr("model_loader._plan.Plan.check_answer", lambda *_: None)
    assert to_client(SEED, 300).found
