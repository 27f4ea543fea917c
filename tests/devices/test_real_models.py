"""Every third-party model on every plan that takes it: the answers of the reference kernels.

Those are LiteRT's built-in kernels, in this process. Inputs are real ones where the folder has
some. `docs/devices.md` states the tolerances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

import model_loader as ml
from model_loader_cli.bench.numerical import difference
from tests.devices.little_delegate import compile_delegate, compiler
from tests.devices.openvino_worker import need_openvino
from tests.runtime.engines import Answer, Array, Plain, answer_of, engine
from tests.shared_models import SharedModel, require_model, select
from tests.shared_runs import HOG, each_that_runs, stored_inputs

pytestmark = pytest.mark.slow

FLOAT_TOLERANCE = 1e-3
"""Of an output's largest value: models without quantized tensors."""
QUANTIZED_TOLERANCE = 0.1
"""Of it too: each layer rounds, and not every kernel rounds alike."""
STEPS = {1: 25}
"""Of integer outputs, by bytes an element: the same tenth; others by one, which is rounding."""
QUANTIZED = {"INT8", "UINT8", "const_INT8", "const_UINT8", "INT16"}
PICKING = {"coco_ssd_mobilenet_v1_quant": 0.02, "movenet_lightning_ptq": 0.02}
"""They sort, or look for the largest value, and of two that are nearly equal may take the other:
the tolerance is that of half of the values."""
NEED_XNNPACK = {"mp_selfie_segmentation", "mp_selfie_segmentation_landscape"}
"""They have an operator that only XNNPACK knows: it is what they are compared with."""
CALLS = 2
"""The second one shows the state of models that have one."""

EXTERNAL = "external:little"
PLANS: Mapping[str, Mapping[str, Any]] = {
    "reference": {"accelerator_name": "reference"},
    "xnnpack": {"accelerator_name": "xnnpack"},
    "external": {"accelerator_name": EXTERNAL, "max_number_delegated_partitions": 0},
    "openvino": {"accelerator_name": "openvino"},
    "mixed": {"execution_preference": "fast_single_answer", "max_number_delegated_partitions": 0},
}
"""`external` is the tests' own delegate, which takes additions and multiplications; `mixed` lets
each operator go to the device that is said to be fastest."""

WHOLE, SPLIT, NOTHING, REFUSED = "whole", "split", "nothing", "refused"
LEAST_TAKEN = {"reference": 65, "xnnpack": 50, "external": 15, "openvino": 50, "mixed": 15}
"""Models that are run by the plan's devices, in whole or in part: fewer would be a step back."""
MOST_REFUSED = {"reference": 2, "xnnpack": 0, "external": 6, "openvino": 6, "mixed": 0}
_found: dict[str, dict[str, str]] = {plan: {} for plan in PLANS}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ml.Connection]:
    """A service with every device that can be had here."""
    devices = []
    if compiler():
        devices.append(f"{EXTERNAL}={compile_delegate(tmp_path_factory.mktemp('delegate'))}")
    with ml.embed(devices=[*devices, "openvino"]) as connection:
        yield connection


@pytest.fixture(scope="module", params=PLANS)
def plan(request: pytest.FixtureRequest) -> str:
    """Each plan in turn; skipped with the reason where its device is not there."""
    name: str = request.param
    if name == "openvino":
        need_openvino()
    if name in ("external", "mixed") and not compiler():
        pytest.skip("no C compiler is installed to build the tests' delegate with")
    return name


def inputs_of(shared_model: SharedModel) -> list[Array]:
    """A stored run's inputs: of a real run for what was made to be used."""
    order = ("real", "random") if shared_model.category == "real" else ("random", "real")
    run = next(run for kind in order for run in shared_model.expected_of(kind))
    with np.load(run.path) as arrays:
        return stored_inputs(arrays)


@cache
def reference_of(name: str) -> list[list[Answer]]:
    """What the built-in kernels answer, call by call."""
    shared_model = require_model(name)
    builtin = name not in NEED_XNNPACK
    plain = Plain(engine("litert"), shared_model.read(), builtin=builtin)
    return [plain.call(inputs_of(shared_model)) for _ in range(CALLS)]


def arrays_of(infos: list[ml.MLTensorInfo], answers: list[Answer]) -> dict[str, Array]:
    """Numbers as numbers, and everything else as bytes."""
    return {
        f"{position} {info.name}": (
            np.frombuffer(data, np.uint8)
            if info.data_type in ("string", "unknown")
            else np.frombuffer(data, info.data_type).reshape(shape)
        )
        for position, (info, (shape, data)) in enumerate(zip(infos, answers, strict=True))
    }


def run(service: ml.Connection, shared_model: SharedModel, plan: str) -> ml.Delegation:
    """Compute as planned and compare every call; returns the report on devices.

    Raises OperationError or NotSupportedError where the plan's device refuses the model.
    """
    context = ml.create_context(connection=service, **PLANS[plan])
    with ml.MLModelLoader(context).load(shared_model.path) as model:
        infos = list(model.outputs())
        given = {
            info.name: array.tobytes() if info.data_type == "unknown" else array
            for info, array in zip(model.inputs(), inputs_of(shared_model), strict=True)
        }
        for wanted in reference_of(shared_model.name):
            answer = model.compute(given)
            found = [answer_of(np.asarray(answer[info.name])) for info in infos]
            if plan == "reference":
                assert found == wanted
            else:
                compare(shared_model, arrays_of(infos, found), arrays_of(infos, wanted))
        report = model.delegation()
    assert report is not None
    return report


def compare(
    shared_model: SharedModel, answer: Mapping[str, Array], wanted: Mapping[str, Array]
) -> None:
    """Hold an answer to the tolerance of its model."""
    share = PICKING.get(shared_model.name)
    if share is not None:
        for name, values in wanted.items():
            apart = np.abs(answer[name] - values)
            assert np.median(apart) <= share * np.max(np.abs(values)), name
        return
    quantized = QUANTIZED & shared_model.values["tensor_types"].keys()
    for name, values in wanted.items():
        found = difference({name: answer[name]}, {name: values})
        assert found.relative <= (QUANTIZED_TOLERANCE if quantized else FLOAT_TOLERANCE), found
        assert found.steps <= STEPS.get(values.itemsize, 1), found


def outcome_of(plan: str, report: ml.Delegation) -> str:
    """How much of the model the plan's device has; the mixed plan: all but the CPU's kernels."""
    others = ("reference", "xnnpack") if plan == "mixed" else ()
    taken = sum(
        part.nodes
        for part in report.partitions
        if (part.device not in others if others else part.device.startswith(plan))
    )
    return NOTHING if not taken else WHOLE if taken == report.nodes else SPLIT


@each_that_runs()
def test_it_answers_as_the_reference_kernels(
    service: ml.Connection, shared_model: SharedModel, plan: str
) -> None:
    try:
        outcome = outcome_of(plan, run(service, shared_model, plan))
    except (ml.OperationError, ml.NotSupportedError):
        # Nothing stands in for a device that was named; the last test counts these.
        outcome = REFUSED
    _found[plan][shared_model.name] = outcome


def test_it_takes_as_many_as_it_did(plan: str) -> None:
    wanted = {model.name for model in select(runs=True)} - {HOG}
    if not wanted or len(_found[plan]) < len(wanted):
        pytest.skip("not all models were tried by this process")
    counts = Counter(_found[plan].values())
    assert counts[WHOLE] + counts[SPLIT] >= LEAST_TAKEN[plan], counts
    assert counts[REFUSED] <= MOST_REFUSED[plan], counts
