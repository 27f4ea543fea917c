"""Which road a model's bytes take: a stream, sealed memory, or none because they are there."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

import model_loader as ml
from model_loader._sealing import SEALED_FROM, Sealing
from model_loader._source import SAMPLE_LENGTH, Source
from model_loader_wire import sealed
from tests.client.conftest import put
from tests.client.fake_service import FakeService
from tests.support.memories import memories


@pytest.fixture(autouse=True)
def no_garbage() -> None:
    """What tests before have left in cycles is not to go, or stay, while memories are counted."""
    gc.collect()


def put_large(service: FakeService, size: int = SEALED_FROM) -> bytes:
    """Put a model of that many bytes into the service."""
    content = os.urandom(size)
    service.files[content] = service.files[put(service)]
    return content


def loader(connection: ml.Connection) -> ml.MLModelLoader:
    """A loader with the usual options."""
    return ml.MLModelLoader(ml.create_context(connection=connection))


def offers(service: FakeService) -> list[bytes]:
    """The offers that the loads named, in their order."""
    return [request.offer for method, request in service.calls if method == "Load"]


def test_only_a_large_model_of_a_local_client_is_offered(service: FakeService) -> None:
    large, little = put_large(service), put_large(service, SEALED_FROM - 1)
    with ml.connect(service.directory) as connection:
        loader(connection).load(large)
        loader(connection).load(little)
    with ml.connect(service.directory, relay=True) as connection:
        loader(connection).load(large)
    assert [bool(name) for name in offers(service)] == [True, False, False]


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "stream"])
def test_every_kind_of_source_can_be_offered(
    service: FakeService, connection: ml.Connection, tmp_path: Path, kind: str
) -> None:
    content = put_large(service, 3_000_001)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    before = memories(os.getpid())
    steps: list[tuple[int, int]] = []
    with path.open("rb") as file:
        source = {"bytes": content, "path": path, "file": file, "stream": io.BytesIO(content)}
        model = loader(connection).load(
            source[kind], on_progress=lambda sent, total: steps.append((sent, total))
        )
    assert offers(service) != [b""]
    assert model.report.sha256 == hashlib.sha256(content).hexdigest()
    assert model.report.size == len(content)
    assert steps == [(n, len(content)) for n in (1 << 20, 2 << 20, len(content))]
    model.close()
    assert memories(os.getpid()) == before


def test_a_model_that_was_loaded_is_not_sent_again(
    service: FakeService, connection: ml.Connection, tmp_path: Path
) -> None:
    content, little = put_large(service), put(service)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    for source in (content, path, content, little, little):
        loader(connection).load(source)
    assert service.methods().count("FindModel") == 3
    assert len(service.offers) == 4  # sent as memory once; found three times
    assert [bool(name) for name in offers(service)] == [True, True, True, False, True]


def test_another_model_of_the_same_size_is_sent_and_not_hashed(
    service: FakeService, connection: ml.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put_large(service), put_large(service)
    assert len(first) == len(second)
    monkeypatch.setattr(Source, "find_digest", lambda source: pytest.fail("hashed in vain"))
    digests = [loader(connection).load(content).report.sha256 for content in (first, second)]
    assert digests == [hashlib.sha256(content).hexdigest() for content in (first, second)]
    assert service.methods().count("FindModel") == 0


def test_one_that_looks_the_same_is_sent(service: FakeService, connection: ml.Connection) -> None:
    first = put_large(service)
    # A byte that no sample holds.
    second = first[:SAMPLE_LENGTH] + bytes([first[SAMPLE_LENGTH] ^ 1]) + first[SAMPLE_LENGTH + 1 :]
    service.files[second] = service.files[first]
    assert Source(first, None).mark() == Source(second, None).mark()
    for content in (first, second):
        loader(connection).load(content)
    assert service.methods().count("FindModel") == 1
    assert len(set(offers(service))) == 2


@pytest.mark.parametrize("size", [1, SAMPLE_LENGTH, SAMPLE_LENGTH + 1, 100_000])
def test_a_mark_is_of_bytes_from_the_first_to_the_last(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert Source(file, None).mark() == size
    opened = Source(path, None)
    assert opened.mark() == Source(content, None).mark()
    opened.close()
    for place in (0, size - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        assert Source(changed, None).mark() != Source(content, None).mark()
    assert Source(content + b"0", None).mark() != Source(content, None).mark()


def test_a_relayed_client_does_not_send_it_again_either(service: FakeService) -> None:
    content = put_large(service)
    with ml.connect(service.directory, relay=True) as connection:
        for _ in range(2):
            loader(connection).load(content)
    assert [bool(name) for name in offers(service)] == [False, True]


def test_without_such_memory_the_bytes_are_streamed(
    service: FakeService, connection: ml.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> NoReturn:
        raise OSError(errno.ENOSYS, "no memfd here")

    monkeypatch.setattr(sealed, "make", refuse)
    model = loader(connection).load(put_large(service))
    assert offers(service) == [b""]
    assert model.report.size == SEALED_FROM


def test_a_source_that_shrinks_is_not_offered(
    service: FakeService, connection: ml.Connection
) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size)[:-1] if self.tell() < SEALED_FROM else b""

    before = memories(os.getpid())
    with pytest.raises(ml.DataError, match="changed while it was read"):
        loader(connection).load(Shrinking(bytes(SEALED_FROM)))
    assert not service.offers
    assert memories(os.getpid()) == before


class Waiting(io.RawIOBase):
    """A source that says when it is read and gives its bytes when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.gate = threading.Event()

    def read(self, size: int = -1) -> bytes:
        """Give bytes of a model that never ends."""
        self.begun.set()
        assert self.gate.wait(10)
        return b"model"


def test_a_thread_that_nobody_waits_for_writes_into_no_other_file(tmp_path: Path) -> None:
    source = Waiting()
    before = memories(os.getpid())
    sealing = Sealing(Source(source, None))
    with ThreadPoolExecutor(1) as thread:
        filling = thread.submit(sealing.fill)
        assert source.begun.wait(10)
        sealing.close()
        assert memories(os.getpid()) == before
        # One of these gets the number that the memory had.
        files = [(tmp_path / str(number)).open("wb") for number in range(5)]
        source.gate.set()
        with pytest.raises(ValueError, match="closed"):
            filling.result(10)
    for file in files:
        assert os.fstat(file.fileno()).st_size == 0
        file.close()
    with pytest.raises(ValueError, match="closed"):
        sealing.offer(NotImplemented)


def test_memory_that_nobody_took_over_is_given_back() -> None:
    before = memories(os.getpid())
    sealing = Sealing(Source(b"model", None))
    assert memories(os.getpid()) == before + 1
    del sealing  # as the result of a thread whose caller was cancelled
    assert memories(os.getpid()) == before
