"""OpenVINO as a device: what it says it takes, what it computes, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest

from loader_service.devices.device import (
    Compilation,
    DeadlineMissed,
    DeviceType,
    Preference,
)
from loader_service.devices.openvino import (
    OpenVinoDevice,
    configuration_for,
    refuse_constants_of_others,
    unfit,
)
from loader_service.devices.openvino_library import first_line
from loader_service.devices.reading import read_view
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.sandbox import own_file
from loader_service.writer import small
from loader_service.writer.model import ModelWriter
from loader_service.writer.stateful import counter
from tests.devices import split_model
from tests.devices.graphs import graph
from tests.devices.models import chain, expected
from tests.devices.openvino_worker import compile_whole, in_worker, need_openvino

pytestmark = pytest.mark.forks

PREFERENCES = list(Preference)


@pytest.fixture(scope="module")
def openvino() -> None:
    """OpenVINO, and a host that lets a worker have it."""
    need_openvino()


def answers(executable: Any, *inputs: np.ndarray) -> list[list[float]]:
    """Run an executable on these inputs."""
    shapes = executable.prepare([array.shape for array in inputs])
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    executable.run(list(inputs), outputs)
    return [array.ravel().tolist() for array in outputs]


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_it_computes_what_the_operators_say_in_memory_that_it_is_given() -> None:
    operators = ["ADD", "MUL", "FLOOR", "SUB", "ABS"]
    first, second = np.array([[-2.25, 0, 1.5, 99]] * 2, np.float32) * np.array([[1], [3]])

    def work(device: OpenVinoDevice) -> object:
        model = read_view(chain(operators))
        verdicts = [verdict.supported for verdict in device.supported_operations(model)]
        executable = compile_whole(device, model)
        found = [answers(executable, first.astype(np.float32))[0]]
        found.append(answers(executable, second.astype(np.float32))[0])
        # The same memory again, with other contents.
        memory, result = first.astype(np.float32), np.zeros(4, np.float32)
        for values in (first, second):
            memory[:] = values
            executable.run([memory], [result])
            found.append(result.tolist())
        executable.close()
        return [verdicts, found]

    verdicts, found = in_worker(work).result()
    wanted = [expected(operators, values).tolist() for values in (first, second)]
    assert verdicts == [True] * 5
    assert found == [*wanted, *wanted]


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_it_compiles_anew_for_other_shapes_and_says_the_answers_shape() -> None:
    def work(device: OpenVinoDevice) -> object:
        executable = compile_whole(device, read_view(split_model.split_model(open_batch=True)))
        rows = [1, 3, 1]
        return [answers(executable, np.full((count, 4), 0.5, np.float32))[0] for count in rows]

    row = split_model.expected(np.full((1, 4), 0.5, np.float32)).ravel().tolist()
    for found, count in zip(in_worker(work).result(), (1, 3, 1), strict=True):
        assert found == pytest.approx(row * count, rel=1e-6)


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_reduced_precision_only_where_it_is_allowed() -> None:
    """In bfloat16 1/3 is off by a part in a thousand; float32 is not."""
    third = np.full(4, 1 / 3, np.float32)

    def work(device: OpenVinoDevice) -> object:
        model = read_view(chain(["MUL", "MUL"]))
        return [
            answers(compile_whole(device, model, allow_fp16=allow), third)[0][0]
            for allow in (False, True)
        ]

    exact, relaxed = in_worker(work).result()
    wanted = float(expected(["MUL", "MUL"], third)[0])
    assert exact == pytest.approx(wanted, rel=1e-6)
    assert relaxed == pytest.approx(wanted, rel=2e-2)


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_what_it_does_not_take_it_says_for_each_operator() -> None:
    def work(device: OpenVinoDevice) -> object:
        models = {
            "state": counter(),
            "custom": _custom(),
            "text": small.copy(TensorType.STRING),
            "open": small.dynamic_output(),
        }
        found = {}
        for name, model in models.items():
            view = read_view(model)
            verdicts = device.supported_operations(view)
            found[name] = [
                [node.operator, verdict.reason]
                for node, verdict in zip(view.nodes, verdicts, strict=True)
            ]
        return found

    found = in_worker(work).result()
    assert {reason for _, reason in found["state"]} == {"it holds state", ""}
    assert found["custom"] == [["ADD", ""], ["Mystery", "OpenVINO knows no custom operators"]]
    assert {reason for _, reason in found["text"]} == {"no tensors of type STRING"}
    assert ["WHERE", "the size of its result is known only when it runs"] in found["open"]


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_a_model_that_it_does_not_read_is_read_in_parts() -> None:
    """An operator between two good ones for which OpenVINO's reader has no translation."""

    def work(device: OpenVinoDevice) -> object:
        real = device.library.read
        reads = 0

        def read(model: Any, partition: Any, shapes: Any) -> Any:
            nonlocal reads
            reads += 1
            if 2 in partition.nodes:
                raise IndexError("map::at: not with this one")
            return real(model, partition, shapes)

        setattr(device.library, "read", read)  # noqa: B010
        verdicts = device.supported_operations(read_view(chain(["ADD"] * 5)))
        return [[verdict.reason for verdict in verdicts], reads]

    reasons, reads = in_worker(work).result()
    assert reasons == ["", "", "map::at: not with this one", "", ""]
    assert reads == 5


class Kept(dict[bytes, bytes]):
    """A cache without a broker."""

    is_open = True

    def put(self, key: bytes, blob: bytes) -> None:
        """Keep a blob."""
        self[key] = blob


class _WithoutExport:
    """OpenVINO's core, whose compiled models cannot be written."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def compile_model(self, *arguments: object) -> Any:
        """Compile, and forbid to write it."""
        compiled = self._core.compile_model(*arguments)

        def export_model() -> None:
            raise RuntimeError("not of this device")

        compiled.export_model = export_model
        return compiled


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_what_was_compiled_is_taken_from_the_cache_for_the_same_only() -> None:
    operators = ["ADD", "MUL"]
    x = np.array([-2.25, 0, 1.5, 99], np.float32)

    def work(device: OpenVinoDevice) -> object:
        cache, model = Kept(), read_view(chain(operators))
        found = []

        def compile_and_run(**how: object) -> None:
            executable = compile_whole(device, model, cache=cache, **how)
            found.append([executable.cache_hit, answers(executable, x)[0], len(cache)])
            executable.close()

        compile_and_run()
        compile_and_run()
        # What else goes into a compilation: its precision, its preference and its threads.
        compile_and_run(allow_fp16=True)
        compile_and_run(preference=Preference.SUSTAINED_SPEED)
        compile_and_run(threads=2)
        # What OpenVINO does not take is compiled anew, and replaced.
        for key in cache:
            cache[key] = b"no compiled partition"
        compile_and_run()
        compile_and_run()
        # So is what is another model's, by its inputs' shape or by its tensors.
        for other in (split_model.split_model(), chain(["MUL"])):
            kept = Kept()
            compile_whole(device, read_view(other), cache=kept)
            for key in cache:
                (cache[key],) = kept.values()
            compile_and_run()
        # On other hardware.
        device.library.hardware["CPU"] = ("FULL_DEVICE_NAME=another",)
        compile_and_run()
        # Once the model is loaded nothing is found or kept, nor for a compilation that cannot be.
        cache.is_open = False
        compile_and_run()
        cache.is_open = True
        cache.clear()
        device.library.core = _WithoutExport(device.library.core)
        compile_and_run()
        return found

    found = in_worker(work).result()
    wanted = pytest.approx(expected(operators, x).tolist(), rel=1e-2)
    assert [(hit, kept) for hit, _, kept in found] == [
        (False, 1),
        (True, 1),
        (False, 2),
        (False, 3),
        (False, 4),
        (False, 4),
        (True, 4),
        (False, 4),
        (False, 4),
        (False, 5),
        (None, 5),
        (False, 0),
    ]
    assert [answer for _, answer, _ in found] == [wanted] * len(found)


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_what_comes_too_late_is_not_taken() -> None:
    def work(device: OpenVinoDevice) -> object:
        try:
            compile_whole(device, read_view(small.add()), deadline=monotonic())
        except DeadlineMissed as error:
            return str(error)
        return "taken"

    assert in_worker(work).result() == "OpenVINO compiled it, but not in time"


@pytest.mark.isolation
@pytest.mark.usefixtures("openvino")
def test_without_a_file_of_its_own_a_worker_refuses_everything() -> None:
    def work(device: OpenVinoDevice) -> object:
        own_file._given.clear()
        verdicts = device.supported_operations(read_view(chain(["ADD", "MUL"])))
        return sorted({verdict.reason for verdict in verdicts})

    assert in_worker(work).result() == [
        "OpenVINO reads files only, and this worker has no root to put one in"
    ]


def test_importing_it_starts_no_thread_no_process_and_opens_no_socket() -> None:
    need_openvino()
    program = (
        "import json, os, sys\n"
        "from loader_service.devices.openvino_library import open_library\n"
        "from loader_service.sandbox.process import is_single_threaded\n"
        "library = open_library()\n"
        "links = [os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{name}')]\n"
        "children = open(f'/proc/self/task/{os.getpid()}/children').read()\n"
        "print(json.dumps([is_single_threaded(), children,"
        " [link for link in links if link.startswith('socket')],"
        " sys.modules['openvino_telemetry'], list(library.devices)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    alone, children, sockets, telemetry, devices = json.loads(done.stdout)
    assert (alone, children, sockets, telemetry) == (True, "", [], None)
    assert "CPU" in devices


@pytest.mark.parametrize("preference", PREFERENCES)
@pytest.mark.parametrize("allow_fp16", [False, True])
def test_the_callers_wishes_become_openvinos_properties(
    preference: Preference, allow_fp16: bool
) -> None:
    model = read_view(small.add())
    compilation = Compilation(model, preference, allow_fp16, threads=3)
    found = configuration_for(DeviceType.CPU, compilation)
    assert found["INFERENCE_NUM_THREADS"] == 3
    assert found.get("INFERENCE_PRECISION_HINT") == (None if allow_fp16 else "f32")
    throughput = preference is Preference.SUSTAINED_SPEED
    assert found["PERFORMANCE_HINT"] == ("THROUGHPUT" if throughput else "LATENCY")
    assert ("SCHEDULING_CORE_TYPE" in found) == (preference is Preference.LOW_POWER)
    other = configuration_for(DeviceType.GPU, compilation)
    assert not {"INFERENCE_NUM_THREADS", "NUM_STREAMS"} & set(other)


def test_an_operator_of_this_service_needs_no_openvino_to_be_refused() -> None:
    view = read_view(counter())
    assert {unfit(view, node) for node in view.nodes} >= {"it holds state"}


def test_of_a_message_of_many_lines_the_telling_one_is_shown() -> None:
    error = RuntimeError("Exception from a.cpp:1:\nCheck 'x' failed at b.cpp:2:\nno such thing\n\n")
    assert first_line(error) == "no such thing"
    assert first_line(RuntimeError("")) == "RuntimeError"


def _custom() -> bytes:
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (4,))
    one = graph.constant("one", np.ones(4, np.float32))
    between = graph.tensor("between", TensorType.FLOAT32, (4,))
    y = graph.tensor("y", TensorType.FLOAT32, (4,))
    graph.operator(BuiltinOperator.ADD, [x, one], [between])
    graph.operator("Mystery", [between], [y])
    graph.output(y)
    return model.write()


def test_constants_of_an_operator_that_stays_stay_with_it() -> None:
    # 0: weights from constant 1; 1: from those again; 2: reads them and the input; 3: the rest.
    view = graph(
        ([1], [2]), ([2], [3]), ([0, 3], [4]), ([4, 5], [6]), outputs=[6], operators=["NEG"] * 4
    )
    tensors = tuple(
        replace(tensor, data=(0, 40)) if tensor.index in (1, 5) else tensor
        for tensor in view.tensors
    )
    refused = {2: "no"}
    refuse_constants_of_others(replace(view, tensors=tensors), refused)
    assert sorted(refused) == [0, 1, 2]
    refused = {3: "no"}
    refuse_constants_of_others(replace(view, tensors=tensors), refused)
    assert sorted(refused) == [3]
