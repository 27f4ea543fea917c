"""A worker's report on devices: what it may say, and what of it is told to whom."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from model_loader_wire.delegation import (
    STEPS,
    BadDelegation,
    Delegation,
    DeviceFacts,
    PartitionFacts,
    Reason,
    delegation_from_values,
)

REPORT = Delegation(
    nodes=10,
    partitions=(
        PartitionFacts("npu", 6, {"CONV_2D": 4, "ADD": 2}, 0.25, "miss", 0.001),
        PartitionFacts("xnnpack", 3, {"RELU": 3}),
    ),
    devices=(DeviceFacts("npu", "accelerator", "3.1", 29), DeviceFacts("xnnpack", "cpu", "1", 31)),
    reasons=(Reason("npu", "RELU", 3, "no such operator"),),
    steps=("npu: 6 operators",),
)


def test_a_report_travels_as_json() -> None:
    assert delegation_from_values(json.loads(json.dumps(REPORT.to_values()))) == REPORT
    assert REPORT.share(REPORT.partitions[0]) == 0.6


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("nodes",), 8),
        (("nodes",), -1),
        (("nodes",), True),
        (("partitions",), {}),
        (("partitions",), [{}] * 257),
        (("partitions", 0), 3),
        (("partitions", 0, "device"), "a" * 81),
        (("partitions", 0, "operators"), {str(number): 1 for number in range(257)}),
        (("partitions", 0, "operators"), {"ADD": "many"}),
        (("partitions", 0, "cache"), "perhaps"),
        (("partitions", 0, "compile_seconds"), -0.5),
        (("partitions", 0, "run_seconds"), float("nan")),
        (("devices", 0, "type"), "quantum"),
        (("devices", 0, "type"), []),
        (("reasons", 0, "reason"), "a" * 301),
        (("steps",), ["step"] * (STEPS + 1)),
        (("steps", 0), None),
    ],
)
def test_what_a_true_worker_would_not_say_is_refused(path: tuple[Any, ...], value: object) -> None:
    values = copy.deepcopy(json.loads(json.dumps(REPORT.to_values())))
    place = values
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BadDelegation):
        delegation_from_values(values)


def test_texts_reach_no_terminal_unescaped() -> None:
    values = REPORT.to_values() | {"steps": ["\x1b[2J"]}
    assert delegation_from_values(values).steps == ("\\x1b[2J",)


def test_the_web_is_told_types_only() -> None:
    coarse = REPORT.coarsened()
    assert [item.device for item in coarse.partitions] == ["accelerator", "cpu"]
    told = json.dumps(coarse.to_values())
    for secret in ("npu", "xnnpack", "3.1", "29", "CONV_2D", "RELU", "operators: 6", "0.25"):
        assert secret not in told.replace('"operators": {}', "")
    assert delegation_from_values(json.loads(told)) == coarse
