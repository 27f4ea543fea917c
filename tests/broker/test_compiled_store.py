"""Compiled partitions that are kept: whose they are, what gives way, and what is not believed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from loader_service.broker.compiled_folder import CompiledFolder
from loader_service.broker.compiled_store import (
    ENTRY_BYTES,
    TAG_BYTES,
    CacheLimits,
    CompiledStore,
    InMemory,
    Keeping,
    place_of,
)
from loader_service.broker.groups import Owner

ME = Owner(1000, "my program")
OTHER_ORIGIN = Owner(1000, "another program")
OTHER_USER = Owner(1001, "my program")
SECRET = b"s" * 32
LIMITS = CacheLimits(total=100_000, of_an_origin=50_000, of_an_entry=40_000)
PLACE = place_of(b"m" * 32, b"t" * 32, b"k" * 32)

Open = Callable[[], CompiledStore]


@pytest.fixture(params=["memory", "folder"])
def keeping(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keeping]:
    """Entries in memory, and in a folder."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield InMemory()
        else:
            yield stack.enter_context(closing(CompiledFolder(tmp_path / "compiled")))


def store(keeping: Keeping, secret: bytes = SECRET, limits: CacheLimits = LIMITS) -> CompiledStore:
    """A store over these entries."""
    return CompiledStore(keeping, secret, limits)


def test_what_is_kept_is_found_by_its_owner_only(keeping: Keeping) -> None:
    kept = store(keeping)
    assert kept.find(ME, PLACE) is None
    assert kept.keep(ME, PLACE, b"compiled")
    assert kept.find(ME, PLACE) == b"compiled"
    assert kept.find(OTHER_ORIGIN, PLACE) is None
    assert kept.find(OTHER_USER, PLACE) is None
    kept.keep(OTHER_USER, PLACE, b"another's")
    assert kept.find(ME, PLACE) == b"compiled"
    assert kept.keep(ME, PLACE, b"newer")
    assert kept.find(ME, PLACE) == b"newer"


@pytest.mark.parametrize("part", ["model", "token", "key"])
def test_another_model_token_or_key_is_another_place(part: str) -> None:
    given = {"sha256": b"m" * 32, "token": b"t" * 32, "key": b"k" * 32}
    given[{"model": "sha256"}.get(part, part)] = b"x" * 32
    assert place_of(**given) != PLACE


def test_parts_of_a_place_cannot_be_moved_between_token_and_key() -> None:
    assert place_of(b"m" * 32, b"t", b"t" * 32) != place_of(b"m" * 32, b"tt", b"t" * 31)


def test_what_was_used_longest_ago_gives_way_to_the_same_owner(keeping: Keeping) -> None:
    kept = store(keeping)
    places = [bytes([number]) * 32 for number in range(4)]
    kept.keep(OTHER_USER, PLACE, b"o" * 20_000)
    for place in places[:2]:
        assert kept.keep(ME, place, bytes(20_000))
    assert kept.find(ME, places[0]) is not None
    # A third does not fit the owner's part: the second is the one that was not used since.
    assert kept.keep(ME, places[2], bytes(20_000))
    assert [kept.find(ME, place) is not None for place in places] == [True, False, True, False]
    assert kept.find(OTHER_USER, PLACE) is not None


def test_all_together_stay_below_the_total(keeping: Keeping) -> None:
    kept = store(keeping)
    owners = [Owner(uid, "x") for uid in range(5)]
    for owner in owners:
        assert kept.keep(owner, PLACE, bytes(25_000))
    found = [kept.find(owner, PLACE) is not None for owner in owners]
    assert found == [False, False, True, True, True]
    assert sum(size for _, size in keeping.names() if size > 32) <= LIMITS.total


def test_entries_of_a_byte_are_bounded_in_their_number_too(keeping: Keeping) -> None:
    kept = store(keeping)
    for uid in range(3):
        for number in range(20):
            assert kept.keep(Owner(uid, "x"), bytes([number]) * 32, b"x")
    assert len([name for name, _ in keeping.names() if "-" in name]) == 100_000 // (4096 + 33)
    # What was there already counts as much.
    fewer = CacheLimits(5 * ENTRY_BYTES, 5 * ENTRY_BYTES, 1)
    store(keeping, limits=fewer)
    assert len([name for name, _ in keeping.names() if "-" in name]) == 4


@pytest.mark.parametrize("size", [0, 40_001])
def test_an_entry_of_no_or_too_many_bytes_is_not_kept(keeping: Keeping, size: int) -> None:
    kept = store(keeping)
    assert not kept.keep(ME, PLACE, bytes(size))
    assert kept.find(ME, PLACE) is None


def test_nothing_is_kept_where_that_is_the_limit(keeping: Keeping) -> None:
    kept = store(keeping, limits=CacheLimits(0, 0, 0))
    assert not kept.keep(ME, PLACE, b"compiled")
    assert kept.find(ME, PLACE) is None


@pytest.mark.parametrize("place", [0, TAG_BYTES, -1])
def test_a_damaged_entry_is_as_if_it_were_not_there(keeping: Keeping, place: int) -> None:
    kept = store(keeping)
    kept.keep(ME, PLACE, b"compiled")
    ((name, size),) = [item for item in keeping.names() if "-" in item[0]]
    sealed = bytearray(keeping.read(name, size) or b"")
    sealed[place] ^= 1
    keeping.write(name, bytes(sealed))
    assert kept.find(ME, PLACE) is None
    # It is gone, and can be built anew.
    assert keeping.read(name, size) is None
    assert kept.keep(ME, PLACE, b"compiled")
    assert kept.find(ME, PLACE) == b"compiled"


def test_an_entry_cannot_be_put_into_anothers_place(keeping: Keeping) -> None:
    kept = store(keeping)
    kept.keep(ME, PLACE, b"compiled")
    ((mine, size),) = [item for item in keeping.names() if "-" in item[0]]
    sealed = keeping.read(mine, size) or b""
    kept.keep(OTHER_USER, PLACE, b"x")
    (theirs,) = [name for name, _ in keeping.names() if "-" in name and name != mine]
    keeping.write(theirs, sealed)
    assert kept.find(OTHER_USER, PLACE) is None


def test_entries_of_another_secret_are_not_believed(keeping: Keeping) -> None:
    store(keeping).keep(ME, PLACE, b"compiled")
    assert store(keeping, b"another".ljust(32)).find(ME, PLACE) is None


def test_a_folder_outlives_its_service(tmp_path: Path) -> None:
    for found in (None, b"compiled"):
        with closing(CompiledFolder(tmp_path / "kept")) as folder:
            kept = store(folder, folder.secret)
            assert kept.find(ME, PLACE) == found
            kept.keep(ME, PLACE, b"compiled")


def test_a_smaller_total_takes_effect_at_the_next_start(tmp_path: Path) -> None:
    with closing(CompiledFolder(tmp_path / "kept")) as folder:
        first = store(folder, folder.secret)
        for number in range(2):
            first.keep(ME, bytes([number]) * 32, bytes(20_000))
            os.utime(max((tmp_path / "kept").glob("*-*"), key=os.path.getctime), (number, number))
    with closing(CompiledFolder(tmp_path / "kept")) as folder:
        later = store(folder, folder.secret, CacheLimits(30_000, 30_000, 30_000))
        assert [later.find(ME, bytes([number]) * 32) is None for number in range(2)] == [
            True,
            False,
        ]
    assert len(list((tmp_path / "kept").glob("*-*"))) == 1


def test_what_is_half_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    (folder / f"{'0' * 32}-{'0' * 64}.new").write_bytes(b"half")
    with closing(CompiledFolder(folder)) as opened:
        assert [name for name, _ in opened.names()] == []
    assert [path.name for path in folder.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="service alone"):
        CompiledFolder(folder)


def open_below(folder: Path) -> list[str]:
    """What this process has open in a folder; others' threads open and close what they like."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(descriptor))
    return sorted(path for path in found if path.startswith(str(folder)))


def test_what_is_no_file_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    with closing(CompiledFolder(tmp_path / "kept")) as folder:
        names = [f"{digit * 32}-{digit * 64}" for digit in "abc"]
        (tmp_path / "elsewhere").write_bytes(b"secret of somebody")
        (tmp_path / "kept" / names[0]).symlink_to(tmp_path / "elsewhere")
        os.mkfifo(tmp_path / "kept" / names[1])
        (tmp_path / "kept" / names[2]).mkdir()
        assert folder.names() == []
        before = open_below(tmp_path)
        assert [folder.read(name, 100) for name in names] == [None, None, None]
        assert open_below(tmp_path) == before
        # Writing puts a new file in the place of the link.
        assert folder.write(names[0], b"mine")
        assert (tmp_path / "elsewhere").read_bytes() == b"secret of somebody"
        assert not folder.write(names[2], b"mine")


def test_modes_are_the_services_own(tmp_path: Path) -> None:
    with closing(CompiledFolder(tmp_path / "kept")) as folder:
        store(folder, folder.secret).keep(ME, PLACE, b"compiled")
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kept").iterdir()} == {0o600}
