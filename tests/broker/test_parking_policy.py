"""Which models are parked, and when, told from times and numbers alone."""

from __future__ import annotations

from time import monotonic
from typing import Any, cast

import pytest

from loader_service.broker.descriptors import Descriptors
from loader_service.broker.event_stream import EventStream
from loader_service.broker.parkable import ParkableWorker
from loader_service.broker.parking import Parking
from loader_service.broker.principals import Principals
from loader_service.broker.returning import Returning
from loader_service.broker.settings import Settings


class Place:
    """What is known of a model that may be parked."""

    def __init__(self, idle_seconds: float, pid: int = 7) -> None:
        self.idle_since = monotonic() - idle_seconds
        self.pid = pid
        self.asked = 0

    def look(self, now: float) -> None:
        """Nothing was computed since."""

    def park(self) -> None:
        """Be asked."""
        self.asked += 1


def asked(settings: dict[str, Any], left: int, *places: Place, looks: int = 1) -> list[int]:
    """Look, with so much memory left; gives how often each was asked to make room."""
    parking = parking_of(settings, left)
    parking._places = dict.fromkeys(cast(list[ParkableWorker], places))
    for _ in range(looks):
        parking.look()
    return [place.asked for place in places]


def parking_of(settings: dict[str, Any], left: int) -> Parking:
    """A service's parking with these settings."""
    given = Settings(directory="", **settings)
    descriptors = Descriptors(given, Principals(given))
    return Parking(given, descriptors, EventStream(), cast(Returning, None), lambda: left)


def test_what_was_not_called_for_long_is_parked() -> None:
    places = Place(100), Place(61), Place(50), Place(100, pid=0)
    assert asked({"keep_alive_seconds": 60}, 0, *places) == [1, 1, 0, 0]


def test_without_these_settings_nothing_is_parked() -> None:
    assert asked({}, 0, Place(1e6)) == [0]
    assert not Settings(directory="").parks


def test_under_pressure_the_one_that_was_called_longest_ago_is_parked() -> None:
    places = Place(30), Place(40), Place(35), Place(100, pid=0)
    assert asked({"memory_pressure_bytes": 1000}, 999, *places) == [0, 1, 0, 0]


def test_one_that_does_not_make_room_keeps_no_other_from_being_asked() -> None:
    # The first computes for long. The last is on its way back, and its client takes its time.
    places = Place(50), Place(40), Place(35), Place(100, pid=0)
    assert asked({"memory_pressure_bytes": 1000}, 0, *places, looks=3) == [1, 1, 1, 0]
    assert asked({"memory_pressure_bytes": 1000}, 0, *places, looks=2) == [2, 2, 1, 0]


@pytest.mark.parametrize(("left", "idle_seconds"), [(1000, 40), (0, 0.5)])
def test_no_pressure_and_no_idle_model_park_nothing(left: int, idle_seconds: float) -> None:
    assert asked({"memory_pressure_bytes": 1000}, left, Place(idle_seconds)) == [0]


def test_bytes_are_held_for_each_user_up_to_the_limit() -> None:
    parking = parking_of({"keep_alive_seconds": 1, "parked_model_bytes": 100}, 0)
    assert parking.takes(1, 100)
    assert not parking.takes(1, 101)
    assert not parking.takes(1, 0)
    parking._bytes[1] = 60
    assert not parking.takes(1, 41)
    assert parking.takes(2, 100)
    assert not parking_of({"parked_model_bytes": 100}, 0).takes(1, 1)
