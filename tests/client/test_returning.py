"""Connections that outlive their service: what comes back, what does not, and what is told."""

from __future__ import annotations

import asyncio
import builtins
import gc
import io
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader import _opening, _returning
from model_loader._effects import Pause, Steps
from model_loader._model_core import ModelCore
from model_loader._recall import Kept, keep
from model_loader._renewal import MODELS_WENT
from model_loader._session import Session
from model_loader._tls import Credentials
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.data_types import DataType
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.client import workers
from tests.client.conftest import put
from tests.client.fake_service import FakeModel, FakeService, echoing, tensor

X = np.ones((2, 3), np.float32)
OTHER = echoing(tensor("another", DataType.FLOAT32, (2, 3)))


@pytest.fixture(params=["direct", "relayed"])
def returning(service: FakeService, request: pytest.FixtureRequest) -> Iterator[ml.Connection]:
    """A connection of each kind that comes back."""
    relay = request.param == "relayed"
    with ml.connect(service.directory, relay=relay, reconnect=True) as connection:
        yield connection


@pytest.fixture
def loader(returning: ml.Connection) -> Iterator[ml.MLModelLoader]:
    """A loader on each kind."""
    with ml.create_context(connection=returning) as context:
        yield ml.MLModelLoader(context)


class Attempts:
    """What `patiently` is given: it fails with these errors, one after another, and then works."""

    def __init__(self, *errors: ml.ModelLoaderError) -> None:
        self.errors = list(errors)
        self.session = Session(pb.Session(token=b"none"), "unix:/nowhere", None, None)

    def __call__(self) -> Steps[str]:
        if self.errors:
            raise self.errors.pop(0)
        return "done"
        yield  # a generator

    def pauses(self, patience: float = 3600) -> list[float]:
        """Run it, and give the pauses that it made; the clock stands still."""
        made: list[float] = []
        steps = _returning.patiently(self.session, self, _returning.until(patience))
        for effect in steps:
            assert isinstance(effect, Pause)
            made.append(effect.seconds)
        return made


def gone() -> ml.NetworkError:
    """Make what a call fails with while the service is away."""
    return ml.NetworkError("nobody answers")


def test_pauses_grow_up_to_a_bound() -> None:
    attempts = Attempts(*(gone() for _ in range(8)))
    assert attempts.pauses() == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert not attempts.errors


def test_patience_ends() -> None:
    attempts = Attempts(*(gone() for _ in range(8)))
    with pytest.raises(ml.NetworkError, match="nobody answers"):
        attempts.pauses(1e-9)
    assert len(attempts.errors) == 7  # one attempt is made in any case


def test_other_failures_are_not_tried_again() -> None:
    for error in (ml.DataError("no"), ml.QuotaExceededError("no"), ml.NotFoundError("no")):
        attempts = Attempts(error, gone())
        with pytest.raises(type(error)):
            attempts.pauses()
        assert len(attempts.errors) == 1


def test_a_closed_connection_waits_no_more() -> None:
    attempts = Attempts(gone(), gone())
    steps = _returning.patiently(attempts.session, attempts, _returning.until(60))
    next(steps)
    attempts.session.closed = True
    with pytest.raises(ml.InvalidStateError, match="closed"):
        next(steps)


def test_what_is_kept_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.tflite"
    path.write_bytes(b"0123456789")
    monkeypatch.chdir(tmp_path)
    assert keep("some.tflite", None) == Kept(path, "some.tflite")
    assert keep(str(path).encode() and path, None).source == path
    content = b"abc"
    assert keep(content, None).source is content  # bytes do not change: no copy
    changing = bytearray(content)
    kept = keep(changing, None)
    changing[:] = b"xyz"
    assert kept.source == b"abc"
    with path.open("rb") as file:
        file.seek(4)
        assert keep(file, None) == Kept(b"456789", "some.tflite")
    assert keep(io.BytesIO(content), None) == Kept(content, "")
    with pytest.raises(ml.ConstraintError):
        keep(42, None)
    with pytest.raises(ml.QuotaExceededError):
        keep(bytearray(10), 5)
    with pytest.raises(FileNotFoundError):
        keep(tmp_path / "other", None)


def test_a_connection_comes_back_with_the_files_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def find(*arguments: Any) -> Steps[Session]:
        given.append(arguments[-1])
        return Session(pb.Session(token=b"none"), "tcp://host:1", None, None)
        yield  # a generator

    def run(steps: Steps[Session]) -> Session:
        with pytest.raises(StopIteration) as ended:
            next(steps)
        found: Session = ended.value.value
        return found

    monkeypatch.setattr(_opening, "_find", find)
    monkeypatch.setenv("MODEL_LOADER_TLS_CA", "authority.pem")
    monkeypatch.chdir(tmp_path)
    files = Credentials(certificate="camera.pem", key="/camera.key", token="t" * 32)
    opened = run(_opening.open_session("tcp://host:1", None, False, None, files, reconnect=True))
    monkeypatch.chdir("/")
    monkeypatch.delenv("MODEL_LOADER_TLS_CA")
    assert opened.open_again is not None
    run(opened.open_again())
    assert given == [
        files,
        {
            "ca": tmp_path / "authority.pem",
            "certificate": tmp_path / "camera.pem",
            "key": Path("/camera.key"),
            "token": "t" * 32,
        },
    ]


def test_an_idle_model_comes_back(service: FakeService, loader: ml.MLModelLoader) -> None:
    model, other = loader.load(put(service)), loader.load(bytearray(put(service)))
    np.testing.assert_array_equal(model.compute(X), X)
    assert loader._context.lost is None
    for epoch in range(1, 3):
        service.restart()
        np.testing.assert_array_equal(model.compute(X), X)
        assert (model.lost, loader._context.lost) == (None, None)
        out = np.zeros_like(X)
        other.compute(X, out)
        np.testing.assert_array_equal(out, X)
        assert service.methods().count("Load") == 2 + 2 * epoch
    answers = list(model.compute_many([X, 2 * X, 3 * X]))
    np.testing.assert_array_equal(answers, [X, 2 * X, 3 * X])


def test_a_call_that_begins_while_another_thread_finds_out_comes_back_too(
    service: FakeService, loader: ml.MLModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loader.load(put(service))
    found = model._core.told_lost
    others: list[Callable[[Failure], None]] = [found]

    def check_usable() -> None:
        if others:
            others.pop()(MODELS_WENT)
        ModelCore.check_usable(model._core)

    monkeypatch.setattr(model._core, "check_usable", check_usable)
    np.testing.assert_array_equal(model.compute(X), X)
    assert model.lost is None
    assert service.methods().count("Load") == 2
    assert service.methods().count("Compute") == int(loader._context.connection.relayed)
    # One that goes again is left to its caller, and one that is lost otherwise does not come back.
    others += [found, found]
    with pytest.raises(ml.NetworkError, match="the model was lost"):
        model.compute(X)
    others.append(lambda _: found(Failure(Cause.KILLED, "ended")))
    with pytest.raises(ml.InvalidStateError, match="killed"):
        model.compute(X)


def test_a_sequence_begins_with_a_model_that_comes_back(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    model = loader.load(put(service))
    service.restart()
    np.testing.assert_array_equal(list(model.compute_many([X, 2 * X])), [X, 2 * X])
    service.restart()
    model.reset()
    assert model.lost is None


def test_the_connection_asks_again_and_loads_again(
    service: FakeService, returning: ml.Connection, loader: ml.MLModelLoader
) -> None:
    service.restart()
    assert [item.name for item in returning.formats()] == ["tflite"]
    service.restart()
    model = loader.load(put(service))
    np.testing.assert_array_equal(model.compute(X), X)
    service.restart()
    assert returning.inspect(b"model") == returning.inspect(b"model")


def test_a_context_is_lost_and_found(service: FakeService, loader: ml.MLModelLoader) -> None:
    loader.load(put(service))
    context = loader._context
    service.restart()
    assert context.lost is not None
    assert context.lost.reason is Cause.UNAVAILABLE
    context.formats()
    assert context.lost is None


def test_without_being_asked_nothing_comes_back(service: FakeService, road: ml.Connection) -> None:
    with ml.create_context(connection=road) as context:
        model = ml.MLModelLoader(context).load(put(service))
        service.restart()
        with pytest.raises(ml.NetworkError):
            model.compute(X)
        assert model.lost is not None
        assert model.lost.reason is Cause.UNAVAILABLE
        with pytest.raises(ml.InvalidStateError, match="load it again"):
            model.compute(X)
        assert context.lost is not None
        with pytest.raises(ml.NetworkError):
            ml.MLModelLoader(context).load(put(service))


def test_a_model_that_keeps_state_is_lost(service: FakeService, loader: ml.MLModelLoader) -> None:
    service.keeps_state = True
    model = loader.load(put(service))
    service.keeps_state = False
    plain = loader.load(put(service))
    assert (model.report.keeps_state, plain.report.keeps_state) == (True, False)
    service.restart()
    plain.compute(X)
    with pytest.raises(ml.InvalidStateError, match="load it again"):
        model.compute(X)
    assert model.lost is not None
    assert service.methods().count("Load") == 3


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_file_that_is_another_is_not_loaded(
    service: FakeService, loader: ml.MLModelLoader, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "some.tflite"
    path.write_bytes(put(service))
    model = loader.load(path)
    service.restart()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(put(service))
    with pytest.raises(ml.InvalidStateError, match=str(path)) as caught:
        model.compute(X)
    assert caught.value.cause is Cause.LOST
    assert model.lost is not None
    assert "cannot be read" in model.lost.detail or "has changed" in model.lost.detail
    path.write_bytes(put(service))
    with pytest.raises(ml.InvalidStateError, match=str(path)):  # for good
        model.compute(X)
    assert service.methods().count("Load") == 1


def test_a_model_with_other_inputs_is_not_the_same(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    content = put(service)
    model = loader.load(content)
    service.restart()
    service.files[content] = FakeModel(OTHER)
    with pytest.raises(ml.InvalidStateError, match="other inputs or outputs"):
        model.compute(X)
    ends = time.monotonic() + 60
    while "CloseModel" not in service.methods():  # nobody waits for the reply to it
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_a_refused_load_may_succeed_later(service: FakeService, loader: ml.MLModelLoader) -> None:
    content = put(service)
    model = loader.load(content)
    service.restart()
    known = service.files.pop(content)
    with pytest.raises(ml.DataError):
        model.compute(X)
    service.files[content] = known
    np.testing.assert_array_equal(model.compute(X), X)


def test_a_call_waits_for_the_service_within_its_timeout(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    model = loader.load(put(service))
    service.restart()
    service.refuse = Failure(Cause.UNAVAILABLE, "not yet")
    with pytest.raises(ml.NetworkError, match="not yet"):
        model.compute(X, timeout=1)
    threading.Timer(0.2, setattr, (service, "refuse", None)).start()
    np.testing.assert_array_equal(model.compute(X), X)


def test_a_refusal_is_no_absence(service: FakeService, loader: ml.MLModelLoader) -> None:
    model = loader.load(put(service))
    service.restart()
    service.refuse = Failure(Cause.FORBIDDEN, "not you")
    with pytest.raises(ml.SecurityError, match="not you"):
        model.compute(X, timeout=20)


def test_the_service_is_checked_again(service: FakeService, loader: ml.MLModelLoader) -> None:
    model = loader.load(put(service))
    service.restart()
    service.directory.chmod(0o777)
    with pytest.raises(ml.SecurityError, match="writable by nobody else"):
        model.compute(X)
    service.directory.chmod(0o700)
    np.testing.assert_array_equal(model.compute(X), X)


def test_what_is_under_way_is_reported_and_computed_once(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    began = threading.Event()
    runs = itertools.count()
    numbers: list[int] = []

    def restart_in_the_middle(channel: Any, frame: workers.Frame) -> None:
        numbers.append(next(runs))
        if not numbers[-1]:
            began.set()
            service.restart()
            raise workers.Ended
        workers.echo(channel, frame)

    model = loader.load(put(service, None, restart_in_the_middle))
    with pytest.raises(ml.ModelLoaderError) as caught:
        model.compute(X)
    assert began.is_set()
    assert caught.value.model_lost
    assert numbers == [0]
    np.testing.assert_array_equal(model.compute(X), X)
    assert numbers == [0, 1]


def test_many_threads_open_one_session(service: FakeService, loader: ml.MLModelLoader) -> None:
    models = [loader.load(put(service)) for _ in range(4)]
    opened = len(service.hellos) + service.methods().count("OpenSession")
    service.restart()
    answers: list[Any] = []

    def work(model: ml.MLModel) -> None:
        while True:
            try:
                answers.append(model.compute(X))
            except ml.NetworkError:  # it was under way when another thread opened the session anew
                continue
            return

    threads = [threading.Thread(target=work, args=(model,)) for model in models * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(answers, [X] * 8)
    assert len(service.hellos) + service.methods().count("OpenSession") == opened + 1
    assert service.methods().count("Load") == 8


def test_a_model_that_is_closed_while_away_stays_closed(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    model = loader.load(put(service))
    service.restart()
    model.close()
    with pytest.raises(ml.InvalidStateError, match="closed"):
        model.compute(X)
    other = loader.load(put(service))
    service.restart()
    loader._context.connection.close()
    with pytest.raises(ml.InvalidStateError, match="closed"):
        other.compute(X)
    assert loader._context.lost is None


def test_nothing_keeps_a_model_that_came_back(
    service: FakeService, loader: ml.MLModelLoader
) -> None:
    model = loader.load(put(service))
    service.restart()
    model.compute(X)
    core = weakref.ref(model._core)
    del model
    ends = time.monotonic() + 60
    while core() is not None:  # gRPC may still have an error in its hands
        gc.collect()
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_only_true_and_false_are_options(service: FakeService) -> None:
    with pytest.raises(ml.ConstraintError, match="reconnect"):
        ml.connect(service.directory, reconnect="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("relay", [False, True])
def test_on_an_event_loop(service: FakeService, relay: bool) -> None:
    async def main() -> None:
        content = put(service)
        async with await ml.aio.connect(
            service.directory, relay=relay, reconnect=True
        ) as connection:
            context = await ml.aio.create_context(connection=connection)
            loader = ml.aio.MLModelLoader(context)
            models = [await loader.load(content) for _ in range(3)]
            for _ in range(2):
                service.restart()
                async with asyncio.timeout(60):
                    while not (connection._session.look() or relay):
                        await asyncio.sleep(0)
                    for model in models:
                        np.testing.assert_array_equal(await model.compute(X), X)
                assert all(model.lost is None for model in models)
                assert context.lost is None
            service.restart()
            service.refuse = Failure(Cause.UNAVAILABLE, "not yet")
            with pytest.raises(builtins.TimeoutError):
                async with asyncio.timeout(0.2):
                    await models[0].compute(X)
            service.refuse = None
            answers = await asyncio.gather(*(model.compute(X) for model in models))
            np.testing.assert_array_equal(answers, [X] * 3)
            assert len([item async for item in models[0].compute_many([X])]) == 1
            assert [item.name for item in await connection.formats()] == ["tflite"]

    asyncio.run(main())
