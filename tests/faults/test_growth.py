"""A service that is used for long holds no more at the end than at the beginning.

Loads, calls and closes go round in equal parts. After the first ones, in which caches fill, the
broker, the zygote, the client and a worker must have no descriptor, thread or child more, and no
more private memory than a stated slack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from loader_service.writer import small
from tests.faults.ground import Client, StagedService, wait_for
from tests.support.usage import Usage

PARTS = 10
WARM_UP = 3
"""Parts that are not judged."""
SLACK_BYTES = 768 << 10
"""Of private memory, between the least of the first judged parts and the least of the last."""
LOADS_BEFORE = 200
"""The broker's allocators have found their size by then; before it they grow by some MiB."""
LONG_SECONDS = 1200.0

LONG = pytest.mark.slow
HOURS = pytest.mark.timeout(LONG_SECONDS)


@dataclass
class Place:
    """A service, a client of it, and what is looked at."""

    service: StagedService
    client: Client
    model: str

    def family(self) -> dict[str, int]:
        """The processes that stay, by name."""
        (zygote,) = self.service.zygotes()
        return {"broker": self.service.pid, "zygote": zygote, "client": self.client.pid}


OTHERS = ("aio-direct", "blocking-relayed", "aio-relayed")


@pytest.fixture(params=["blocking-direct", *(pytest.param(other, marks=LONG) for other in OTHERS)])
def place(folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """One for each face and road."""
    face, _, road = request.param.partition("-")
    model = folder / "add.tflite"
    model.write_bytes(small.add())
    limits: dict[str, float] = {"loads_per_minute": 1_000_000}
    stage_file = folder / "never"
    # One zygote for the whole of it: another one would hide what the first had grown by.
    service = StagedService(limits, stage_file=str(stage_file), forks_per_zygote=1_000_000)
    client = Client(service.directory, stage_file, face, road)

    client.ask("connect")
    yield Place(service, client, str(model))
    assert client.end() == 0
    with service:
        pass


def judge(looks: dict[str, list[Usage]]) -> None:
    """Assert that nothing has grown between the first judged parts and the last ones."""
    half = (PARTS - WARM_UP) // 2
    for name, all_looks in looks.items():
        judged = all_looks[WARM_UP:]
        first, last = judged[:half], judged[-half:]
        for what in ("descriptors", "threads", "children"):
            # The least: what is just being closed at one look is no growth.
            before, after = (min(getattr(look, what) for look in part) for part in (first, last))
            assert after <= before, f"{name}: {before} {what} became {after}: {all_looks}"
        grown = min(x.private_bytes for x in last) - min(x.private_bytes for x in first)
        assert grown < SLACK_BYTES, f"{name} grew by {grown} bytes: {all_looks}"


def watch(family: Callable[[], Mapping[str, int]], part: Callable[[], None]) -> None:
    """Do all parts, look after each, and judge."""
    looks: dict[str, list[Usage]] = {}
    for _ in range(PARTS):
        part()
        for name, pid in family().items():
            looks.setdefault(name, []).append(Usage.of(pid))
    print({name: [look.private_bytes >> 10 for look in all] for name, all in looks.items()})
    judge(looks)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=[LONG, HOURS])])
def test_loads_and_closes(place: Place, count: int) -> None:
    def part() -> None:
        place.client.ask("cycles", path=place.model, count=count // PARTS, seconds=LONG_SECONDS)
        place.service.wait_for_workers([])
        wait_for(lambda: not place.service.cgroups(), "the end of every worker's cgroup")

    place.client.ask("cycles", path=place.model, count=LOADS_BEFORE, seconds=LONG_SECONDS)
    watch(place.family, part)
    assert place.client.ask("leave") == "left"


@pytest.mark.parametrize("count", [5000, pytest.param(200_000, marks=[LONG, HOURS])])
def test_calls(place: Place, count: int) -> None:
    worker = place.client.ask("load", path=place.model)

    def part() -> None:
        place.client.ask("calls", count=count // PARTS, seconds=LONG_SECONDS)

    watch(lambda: place.family() | {"worker": worker}, part)
    assert len(place.service.workers()) == 1


def test_connections(place: Place) -> None:
    def part() -> None:
        for _ in range(5):
            place.client.ask("leave")
            place.client.ask("connect")
            place.client.ask("load", path=place.model)
        place.service.wait_for_workers(place.service.workers()[-1:])

    watch(place.family, part)
