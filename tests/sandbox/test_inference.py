"""Both runtimes infer inside the whole sandbox, after a warm-up like the zygote's.

Each case is one process like the zygote: it imports the runtime, runs a tiny model once, then forks
workers that parse and run models they have never seen.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_models import REPOSITORY, shared_folder
from tests.support.host import user_namespaces_usable

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(not user_namespaces_usable(), reason="this host refuses user namespaces"),
]

RUNTIMES = {"ai_edge_litert": "LiteRT", "tflite_runtime": "tflite-runtime"}
MODELS = (
    "mlperf_kws_int8",  # tflite-runtime starts threads in two pools, some at the first call
    "mobilenet_v1_0.25_128_quant",
    "mp_face_detection_short_range",
    "edge_resource_vars",
    "edge_where_dynamic_output",
)
ABORTING = "crash_blockwise_quantized_abort"

PROGRAM = """
import json, os, sys
import numpy
from importlib import import_module
sys.path.insert(0, sys.argv[4])
Interpreter = import_module(sys.argv[1] + ".interpreter").Interpreter
threads, names = int(sys.argv[2]), json.loads(sys.argv[5])
from pathlib import Path
from tests.sandbox.sandboxed import in_child, start_sandboxed, worker_uid
from loader_service.sandbox.layers import PROCESS_LAYERS, Layer
from loader_service.sandbox.resource_limits import ResourceLimits

def run(model, threads):
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    random = numpy.random.default_rng(7)
    for detail in interpreter.get_input_details():
        values = random.random(detail["shape"]) * 100
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
    for _ in range(3):
        interpreter.invoke()
    outputs = (interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details())
    return [[list(o.shape), float(numpy.nan_to_num(o.astype("float64")).sum())] for o in outputs]

models = {name: Path(sys.argv[3], name + ".tflite").read_bytes() for name in names}
run(Path(sys.argv[3], "edge_add.tflite").read_bytes(), 1)
wanted = PROCESS_LAYERS if os.geteuid() == 0 else PROCESS_LAYERS - {Layer.UNPRIVILEGED_UID}
answers = {}
for name, model in models.items():
    def limits(entered):
        return ResourceLimits.for_worker(entered, threads=threads)
    plain = in_child(lambda: run(model, threads))
    worker = start_sandboxed(
        lambda: run(model, threads), wanted=wanted, uid=worker_uid(), limits=limits
    )
    boxed = worker.wait()
    assert not worker.outcome.refused, worker.outcome
    answers[name] = {"plain": [plain.status, plain.value], "boxed": [boxed.status, boxed.value]}
print(json.dumps(answers))
"""


def run(runtime: str, threads: int, names: tuple[str, ...]) -> dict[str, dict[str, list[object]]]:
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{RUNTIMES[runtime]} is not installed")
    shared = shared_folder()
    if shared is None:
        pytest.skip("the shared models are not there (MODEL_LOADER_SHARED or ../shared)")
    arguments = [runtime, str(threads), str(shared / "models"), str(REPOSITORY), json.dumps(names)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        cwd=Path("/"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, dict[str, list[object]]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_gives_the_same_inside_the_sandbox(runtime: str, threads: int) -> None:
    answers = run(runtime, threads, MODELS)
    assert set(answers) == set(MODELS)
    for name, answer in answers.items():
        status, value = answer["plain"]
        assert status == 0, name
        assert value, name
        assert answer["boxed"] == answer["plain"], name


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_that_aborts_its_process_ends_a_worker_with_status_6(runtime: str) -> None:
    answer = run(runtime, 1, (ABORTING,))[ABORTING]
    assert answer["plain"][0] == -6
    assert answer["boxed"][0] == 6
