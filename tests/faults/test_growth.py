"""A service that is used for long holds no more at the end than at the beginning.

Loads, calls and closes go round in equal parts. After the first ones, in which caches fill, the
broker, the zygote, the client and a worker must have no descriptor, thread or child more, and no
more private memory, than a stated slack. An allocator finds its size and gRPC starts its threads
at moments of their own, and a leak goes on for ever: so what has grown is done again, and is a
fault if it grows each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from loader_service.writer import small
from tests.faults.ground import Client, StagedService
from tests.support.usage import Usage
from tests.support.waiting import wait_until

PARTS = 10
WARM_UP = 3
"""Parts that are not judged."""
ROUNDS = 3
SLACK = {"descriptors": 0, "threads": 2, "children": 0, "private_bytes": 512 << 10}
"""Between the least of the first judged parts and the least of the last.

Of the 2000 loads of a long round 800 lie between the two, so a leak of 1 KiB or of a hundredth of a
descriptor a load is seen. gRPC's pools of threads have a bound and reach it late.
"""
COUNTED = ("descriptors", "threads", "children")
LOADS_BEFORE = 200
"""The broker's allocators have found their size by then; before it they grow by some MiB."""
LONG_SECONDS = 2400.0

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


def growth(looks: dict[str, list[Usage]], kinds: Collection[str]) -> list[str]:
    """What has grown between the first judged parts and the last ones, for a message."""
    half = (PARTS - WARM_UP) // 2
    found = []
    for name, all_looks in looks.items():
        judged = all_looks[WARM_UP:]
        for kind in kinds:
            # The least: what is just being closed at one look is no growth.
            before, after = (
                min(getattr(look, kind) for look in part)
                for part in (judged[:half], judged[-half:])
            )
            if after - before > SLACK[kind]:
                found.append(f"{name}: {before} {kind} became {after}: {all_looks}")
    return found


def watch(
    family: Callable[[], Mapping[str, int]],
    part: Callable[[], None],
    kinds: Collection[str] = SLACK.keys(),
) -> None:
    """Do all parts, look after each, and judge."""
    for _ in range(ROUNDS):
        looks: dict[str, list[Usage]] = {}
        for _ in range(PARTS):
            part()
            for name, pid in family().items():
                looks.setdefault(name, []).append(Usage.of(pid))
        print({name: [look.private_bytes >> 10 for look in all] for name, all in looks.items()})
        if not (found := growth(looks, kinds)):
            return
    pytest.fail("\n".join(found))


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=[LONG, HOURS])])
def test_loads_and_closes(place: Place, count: int) -> None:
    """A hundred are too few to judge memory by."""

    def part() -> None:
        place.client.ask("cycles", path=place.model, count=count // PARTS, seconds=LONG_SECONDS)
        place.service.wait_for_workers([])
        wait_until(lambda: not place.service.cgroups(), "the end of every worker's cgroup")

    before, kinds = (LOADS_BEFORE, SLACK.keys()) if count > 100 else (10, COUNTED)
    place.client.ask("cycles", path=place.model, count=before, seconds=LONG_SECONDS)
    watch(place.family, part, kinds)
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
            worker = place.client.ask("load", path=place.model)
        place.service.wait_for_workers([worker])

    watch(place.family, part)


@pytest.mark.parametrize(
    ("kind", "each_part", "grows"),
    [
        # Of 200 loads: a descriptor for each hundred, a thread for each fifty, a KiB for each.
        ("descriptors", 2, True),
        ("threads", 4, True),
        ("children", 1, True),
        ("private_bytes", 200 << 10, True),
        ("private_bytes", 20 << 10, False),
        ("descriptors", 0, False),
    ],
)
def test_what_counts_as_growth(kind: str, each_part: int, grows: bool) -> None:
    noise = [0, 3, 0, 1, 0, 5, 0, 0, 2, 0]
    usual = {"descriptors": 20, "threads": 8, "children": 1, "private_bytes": 20 << 20}
    looks = [
        Usage(**usual | {kind: usual[kind] + part * each_part + noise[part]})
        for part in range(PARTS)
    ]
    assert bool(growth({"broker": looks}, SLACK.keys())) == grows
