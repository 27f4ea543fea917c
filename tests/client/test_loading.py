"""Loading: kinds of sources, sizes, digests, options and what the model then tells."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_wire.causes import Cause
from model_loader_wire.limits import Limits
from tests.client.conftest import put
from tests.client.fake_service import FakeService


@pytest.fixture
def loader(connection: ml.Connection) -> Iterator[ml.MLModelLoader]:
    """A loader with the usual options."""
    with ml.create_context(connection=connection) as context:
        yield ml.MLModelLoader(context)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_that_a_process_holds_is_copied(
    connection: ml.Connection,
    service: FakeService,
    loader: ml.MLModelLoader,
    way: Callable[[object], object],
) -> None:
    context = ml.create_context(connection=connection)
    model = ml.MLModelLoader(context).load(put(service))
    for thing in (connection, context, loader, model):
        with pytest.raises(TypeError, match=f"{type(thing).__name__} can be neither copied"):
            way(thing)


class _FilePath:
    """A path of somebody else's class."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> bytes:
        return os.fsencode(self._path)


def headers(service: FakeService) -> list[Any]:
    """Return the headers of the loads that came."""
    return [request for method, request in service.calls if method == "Load"]


def test_kinds_of_sources(service: FakeService, loader: ml.MLModelLoader, tmp_path: Path) -> None:
    content = put(service)
    path = tmp_path / "some model.tflite"
    path.write_bytes(content)
    sources: list[Any] = [content, bytearray(content), memoryview(content), io.BytesIO(content)]
    sources += [str(path), path, _FilePath(path)]
    for source in sources:
        assert loader.load(source).report.size == len(content)
    with path.open("rb") as file:
        loader.load(file)
        assert not file.closed
        assert file.read() == b""
    padded = memoryview(b"".join(bytes([item, 0]) for item in content))[::2]
    assert loader.load(padded).report.size == len(content)
    assert loader.load(np.frombuffer(content, np.uint8)).report.size == len(content)
    sizes = {header.size for header in headers(service)}
    assert sizes == {len(content)}
    assert [header.label for header in headers(service)][4:7] == ["some model.tflite"] * 3


def test_file_is_read_from_where_it_stands(service: FakeService, loader: ml.MLModelLoader) -> None:
    content = put(service)
    file = io.BytesIO(b"skipped" + content)
    file.seek(7)
    assert loader.load(file).report.size == len(content)
    assert headers(service)[0].size == len(content)


def test_pipe_of_unknown_size(service: FakeService, loader: ml.MLModelLoader) -> None:
    content = put(service)
    read, write = os.pipe()

    def fill() -> None:
        with open(write, "wb", buffering=0) as file:
            for place in range(len(content)):
                file.write(content[place : place + 1])

    threading.Thread(target=fill).start()
    steps: list[tuple[int, int]] = []
    with open(read, "rb", buffering=0) as file:
        model = loader.load(file, on_progress=lambda sent, total: steps.append((sent, total)))
    assert model.report.size == len(content)
    assert headers(service)[0].size == 0
    assert steps[-1] == (len(content), 0)


def test_large_model_comes_in_chunks(service: FakeService, loader: ml.MLModelLoader) -> None:
    content = os.urandom(5 * (1 << 20) + 17)
    service.files[content] = service.files[put(service)]
    steps: list[tuple[int, int]] = []
    model = loader.load(content, on_progress=lambda sent, total: steps.append((sent, total)))
    assert model.report.sha256 == hashlib.sha256(content).hexdigest()
    assert [sent for sent, _ in steps] == [n << 20 for n in range(1, 6)] + [len(content)]
    assert {total for _, total in steps} == {len(content)}


@pytest.mark.parametrize(
    "source", [None, 5, [1, 2], {"a": 1}, object()], ids=lambda source: type(source).__name__
)
def test_other_kinds_are_refused(loader: ml.MLModelLoader, source: Any) -> None:
    with pytest.raises(ml.ConstraintError, match="bytes-like object, a path or a binary") as caught:
        loader.load(source)
    assert isinstance(caught.value, TypeError)
    assert caught.value.cause is Cause.BAD_SOURCE


def test_text_file_is_refused(loader: ml.MLModelLoader, tmp_path: Path) -> None:
    with pytest.raises(ml.ConstraintError, match="must be binary"):
        loader.load(io.StringIO("model"))
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\xe4\xff")  # no text in any encoding that is tried
    with path.open(encoding="utf-8") as file, pytest.raises(ml.ConstraintError, match="mode 'rb'"):
        loader.load(file)


def test_reader_of_text_is_refused(loader: ml.MLModelLoader) -> None:
    class Texts:
        def read(self, size: int) -> str:
            return "model"

    with pytest.raises(ml.ConstraintError, match=r"must be binary: its read\(\) gave str"):
        loader.load(Texts())


def test_failing_reader_fails_the_load(loader: ml.MLModelLoader) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        loader.load(Broken())


def test_failing_progress_fails_the_load(service: FakeService, loader: ml.MLModelLoader) -> None:
    def fail(sent: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        loader.load(put(service), on_progress=fail)
    with pytest.raises(ml.ConstraintError):
        loader.load(put(service), on_progress=5)  # type: ignore[arg-type]


def test_empty_and_missing_sources(loader: ml.MLModelLoader, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for source in (b"", empty, io.BytesIO()):
        with pytest.raises(ml.DataError, match="empty"):
            loader.load(source)
    with pytest.raises(FileNotFoundError):
        loader.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        loader.load(tmp_path)


def test_model_above_the_limit_is_not_sent(service: FakeService, tmp_path: Path) -> None:
    with (
        ml.connect(service.directory) as connection,
        ml.create_context(connection=connection, limits=Limits(model_bytes=10)) as context,
    ):
        loader = ml.MLModelLoader(context)
        path = tmp_path / "large"
        path.write_bytes(bytes(11))
        for source in (bytes(11), path, io.BytesIO(bytes(11))):
            with pytest.raises(ml.QuotaExceededError) as caught:
                loader.load(source)
            assert (caught.value.limit, caught.value.maximum) == ("model_bytes", 10)
            assert caught.value.value == 11
        assert service.calls == []

        class Endless:
            def read(self, size: int) -> bytes:
                return bytes(7)

        with pytest.raises(ml.QuotaExceededError):
            loader.load(Endless())


def test_invalid_model(loader: ml.MLModelLoader) -> None:
    with pytest.raises(ml.DataError, match="not a TFLite file") as caught:
        loader.load(b"garbage")
    assert caught.value.cause is Cause.INVALID_MODEL


def test_digest_that_differs(service: FakeService, loader: ml.MLModelLoader) -> None:
    service.damage_digest = True
    with pytest.raises(ml.DataError, match="damaged on the way"):
        loader.load(put(service))
    ends = time.monotonic() + 5
    while "CloseModel" not in service.methods() and time.monotonic() < ends:
        time.sleep(0.01)
    assert "CloseModel" in service.methods()


def test_load_timeout(loader: ml.MLModelLoader) -> None:
    class Slow:
        def read(self, size: int) -> bytes:
            time.sleep(0.05)
            return b"x"

    started = time.monotonic()
    with pytest.raises(ml.TimeoutError, match="deadline"):
        loader.load(Slow(), timeout=0.3)
    assert time.monotonic() - started < 5


def test_options_travel(service: FakeService, connection: ml.Connection) -> None:
    with ml.create_context(
        device_preference="gpu",
        power_preference="low-power",
        num_threads=3,
        connection=connection,
        limits=Limits(memory_bytes=1 << 20),
        required_layers=["seccomp", "landlock"],
    ) as context:
        model = ml.MLModelLoader(context).load(put(service))
        assert (context.device_preference, context.power_preference) == ("gpu", "low-power")
        assert (context.model_format, context.num_threads) == ("tflite", 3)
        assert context.limits.memory_bytes == 1 << 20
        assert context.limits.compute_seconds == 10
        assert context.connection is connection
    header = headers(service)[0]
    assert header.device_preference == "gpu"
    assert header.power_preference == "low-power"
    assert header.num_threads == 3
    assert header.limits.memory_bytes == 1 << 20
    assert header.limits.tensor_bytes == 0
    assert list(header.required_layers) == ["seccomp", "landlock"]
    assert model.report.limits.memory_bytes == 1 << 20


def test_what_a_model_tells(service: FakeService, loader: ml.MLModelLoader) -> None:
    content = put(service)
    model = loader.load(content)
    report = model.report
    assert (report.runtime, report.kernels, report.note, report.threads) == (
        "fake 1",
        "builtin",
        "",
        1,
    )
    assert report.sha256 == hashlib.sha256(content).hexdigest()
    assert report.load_seconds > 0
    assert report.limits == service.limits
    assert model.isolation == ml.Isolation(
        ("seccomp",), {"landlock": "an old kernel"}, "cgroup-v2", 4242
    )
    assert model.inputs() == (ml.MLTensorInfo("x", "float32", (2, 3)),)
    assert model.outputs() == (ml.MLTensorInfo("out:x", "float32", (2, 3)),)
    assert model.signatures() == ()
    assert report.sha256[:12] in repr(model)


@pytest.mark.parametrize(
    "options",
    [
        {"device_preference": "tpu"},
        {"device_preference": None},
        {"power_preference": "high"},
        {"model_format": "onnx"},
        {"num_threads": -1},
        {"num_threads": 1.5},
        {"num_threads": True},
        {"num_threads": 2**32},
        {"limits": {"memory_bytes": 1}},
        {"required_layers": "seccomp"},
        {"required_layers": [""]},
        {"required_layers": 5},
        {"connection": "unix:/run/model-loader"},
    ],
    ids=repr,
)
def test_options_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ml.ConstraintError) as caught:
        ml.create_context(**options)
    assert isinstance(caught.value, TypeError)
    assert next(iter(options)) in str(caught.value)


def test_limits_can_only_be_lowered(connection: ml.Connection) -> None:
    with pytest.raises(ml.QuotaExceededError, match="only be lowered") as caught:
        ml.create_context(connection=connection, limits=Limits(compute_seconds=11))
    assert (caught.value.limit, caught.value.value, caught.value.maximum) == (
        "compute_seconds",
        11,
        10,
    )


def test_loader_takes_a_context_only(connection: ml.Connection) -> None:
    with pytest.raises(ml.ConstraintError):
        ml.MLModelLoader(connection)  # type: ignore[arg-type]


def test_inspect(connection: ml.Connection) -> None:
    summary = connection.inspect(b"anything")
    assert summary["operators"] == ["ADD"]
    assert summary["sha256"] == hashlib.sha256(b"anything").hexdigest()
    assert summary["size"] == 8


def test_rows_of_models_are_printable(
    service: FakeService, connection: ml.Connection, loader: ml.MLModelLoader
) -> None:
    model = loader.load(put(service))
    rows = connection.models()
    assert [(row.model_id, row.label, row.calls) for row in rows] == [
        ("model-0", "\\x1b[31mred", 3)
    ]
    model.close()
