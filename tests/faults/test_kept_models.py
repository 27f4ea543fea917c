"""Models that are kept for later loads go with the last session of their user, whichever it is."""

from __future__ import annotations

import pytest

from loader_service.writer import small
from tests.support.raw_client import RawSession, Service
from tests.support.waiting import wait_until


def kept(service: Service) -> int:
    """How many models the broker holds in memory of its own."""
    return sum("memfd:model" in path for path in service.open_files())


@pytest.mark.parametrize("idle", [0, 1, 3])
def test_sessions_that_loaded_nothing_end_last(idle: int) -> None:
    with Service() as service:
        others = [RawSession(service.directory, f"idle {number}") for number in range(idle)]
        with RawSession(service.directory) as session:
            session.load(small.add())
            assert kept(service) == 1
        for other in others:
            assert kept(service) == 1
            other.close()
        wait_until(lambda: kept(service) == 0, "the kept model to be let go of")
