"""What a worker can read in its own memory: no secret of the broker, the zygote or a neighbour."""

from __future__ import annotations

import secrets

import pytest

from tests.hostile.probe_zygote import SECRET_BEFORE
from tests.hostile.probes import Probe, ProbeService

pytestmark = pytest.mark.isolation

SCAN_SECONDS = 100.0


def found_by(probe: Probe) -> list[str]:
    """Every secret in the worker's readable memory."""
    found: list[str] = probe.ask("memory.find_secrets", SCAN_SECONDS)
    return found


def test_a_worker_finds_no_secret_but_what_it_was_forked_with() -> None:
    own, neighbours = secrets.token_hex(16), secrets.token_hex(16)
    with (
        ProbeService(limits={"compute_seconds": SCAN_SECONDS}) as service,
        service.probe() as first,
    ):
        # The zygote takes up a secret of its own after that one's birth.
        with service.probe("memory.hold", text=neighbours) as second:
            assert second.ask("memory.hold", text=own)
            assert found_by(first) == [SECRET_BEFORE], "the search works, and finds no more"
            later = found_by(second)
        assert {SECRET_BEFORE, own, neighbours} < set(later), "the search finds what is there"
        # What the zygote had before the second birth is the second's as well: that is why the real
        # zygote never touches a caller's bytes.
        assert len(later) == 4
        assert service.secret not in later
        with service.probe() as third:
            assert set(found_by(third)) == set(later) - {own, neighbours}
