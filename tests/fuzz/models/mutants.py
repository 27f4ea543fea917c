"""Makes mutants: bytes flipped, files cut off, and numbers changed by what they mean.

A mutant follows from the models, the run's seed and its own number alone, so that any of them can
be made again.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from loader_service.runtime.schema_operators import BuiltinOperator
from tests.fuzz.models.seeds import Seed
from tests.fuzz.models.spots import Spot, spots

MOST_FLIPS = 16
MOST_EDITS = 3

INTEGERS = (
    0, 1, -1, 2, 3, 4, 5, 7, 8, 9, -2, -5, 16, 64, 127, 128, -128, 255, 256, 1000, 32767, 32768,
    65535, 65536, 100_000, 2**24, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1, -(2**31), 2**32 - 1,
    2**62, 2**63 - 1,
)  # fmt: skip
"""Numbers at which something ends."""

REALS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e3, 1e-6, 1e6, 1e30, -1e30, 1e-30, 1e-40, 3.4e38, 2.0**31,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


class Original:
    """A model that mutants are made of, and its spots by what they mean."""

    def __init__(self, seed: Seed) -> None:
        self.name, self.data = seed

    @cached_property
    def spots(self) -> list[Spot]:
        """All spots; none where the structure cannot be read."""
        return spots(self.data)

    @cached_property
    def kinds(self) -> list[list[Spot]]:
        """The spots apart by their field's name, so that rare fields are changed as often."""
        found: dict[str, list[Spot]] = {}
        for spot in self.spots:
            field = "".join(letter for letter in spot.name if not letter.isdigit())
            found.setdefault(field, []).append(spot)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant: its number in the run, what it was made of and how, and its bytes."""

    number: int
    original: str
    kind: str
    """``"bytes flipped"``, ``"cut off"``, or ``"numbers changed"``."""
    changes: tuple[str, ...]
    data: bytes


class Maker:
    """Makes the mutants of one run."""

    def __init__(self, seeds: Sequence[Seed], seed: int) -> None:
        self.originals = [Original(found) for found in seeds]
        self._seed = seed

    def mutant(self, number: int) -> Mutant:
        """Make that mutant; the same for the same models, seed and number."""
        generator = random.Random(f"{self._seed} {number}")
        original = generator.choice(self.originals)
        kind = generator.choices(tuple(_KINDS), weights=(2, 1, 7))[0]
        data, changes = _KINDS[kind](original, generator)
        return Mutant(number, original.name, kind, changes, data)


Change = tuple[bytes, tuple[str, ...]]


def flipped(original: Original, generator: random.Random) -> Change:
    """Set up to `MOST_FLIPS` bytes anywhere to other values, or flip one bit each."""
    data = bytearray(original.data)
    changes = []
    for _ in range(generator.randint(1, MOST_FLIPS)):
        place = generator.randrange(len(data))
        value = generator.choice(
            (generator.randrange(256), data[place] ^ 1 << generator.randrange(8))
        )
        changes.append(f"byte {place}: {data[place]} → {value}")
        data[place] = value
    return bytes(data), tuple(changes)


def cut_off(original: Original, generator: random.Random) -> Change:
    """End the file early."""
    length = generator.randrange(len(original.data))
    return original.data[:length], (f"{length} of {len(original.data)} bytes",)


def edited(original: Original, generator: random.Random) -> Change:
    """Change one to `MOST_EDITS` numbers, each by what its field is."""
    data = bytearray(original.data)
    changes = []
    for _ in range(generator.choice((1, 1, 1, 2, 2, MOST_EDITS))):
        spot = generator.choice(generator.choice(original.kinds))
        changes.append(_edit(data, spot, original, generator))
    return bytes(data), tuple(changes)


_KINDS: dict[str, Callable[[Original, random.Random], Change]] = {
    "bytes flipped": flipped,
    "cut off": cut_off,
    "numbers changed": edited,
}
KINDS = tuple(_KINDS)


def _edit(data: bytearray, spot: Spot, original: Original, generator: random.Random) -> str:
    """Change one number in place; says what it was and became."""
    before = struct.unpack_from(spot.code, data, spot.position)[0]
    code = spot.code[-1]
    if code in "fd":
        value: int | float | bool = generator.choice((*REALS, -before, before * 2.0**20))
    elif code == "?":
        value = not before
    else:
        value = _integer(before, spot, original, generator)
    try:
        struct.pack_into(spot.code, data, spot.position, value)
    except OverflowError:  # a float64's number in a float32
        struct.pack_into(spot.code, data, spot.position, float("inf"))
    return f"{spot.name}: {before} → {value}"


def _integer(before: int, spot: Spot, original: Original, generator: random.Random) -> int:
    name = spot.name
    if "builtin_code" in name and generator.random() < 0.5:
        wanted = int(generator.choice(tuple(BuiltinOperator)))
    elif generator.random() < 0.3:
        # A number of the same field elsewhere: another tensor's shape, another operator's input.
        field = name.rpartition(".")[2].partition("[")[0]
        others = [other for other in original.spots if f".{field}" in other.name]
        other = generator.choice(others or [spot])
        wanted = int(struct.unpack_from(other.code, original.data, other.position)[0])
    elif generator.random() < 0.3:
        wanted = before + generator.choice((-2, -1, 1, 2, before, 4, -4))
    elif generator.random() < 0.2:
        wanted = generator.randrange(-4, 32)
    else:
        wanted = generator.choice(INTEGERS)
    return _wrapped(wanted, spot.code)


def _wrapped(value: int, code: str) -> int:
    """The value as an integer of that code has it."""
    bits = 8 * struct.calcsize(code)
    value &= (1 << bits) - 1
    return value - (1 << bits) if code[-1].islower() and value >> (bits - 1) else value
