"""The choice between devices, as NNAPI's runtime and TFLite's delegates make it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loader_service.devices.capabilities import Performance
from loader_service.devices.device import DeviceType, Preference
from loader_service.devices.partition import partition_of
from loader_service.devices.partitioner import (
    best_devices,
    gain,
    independent_subsets,
    largest,
)
from loader_service.devices.plan import named_device
from loader_service.devices.reading import read_view
from loader_service.runtime.failures import UnsupportedModel
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.writer.model import ModelWriter
from tests.devices.graphs import candidate, chain, graph
from tests.devices.numpy_device import NumpyDevice


def names(chosen: list[object]) -> list[str | None]:
    return [None if item is None else str(getattr(item, "name", "")) for item in chosen]


def test_a_device_is_named_by_its_name_or_its_kind() -> None:
    devices = [NumpyDevice("chip:2"), NumpyDevice("chip:1"), NumpyDevice("other")]
    assert named_device(devices, "chip:1") is devices[1]
    assert named_device(devices, "chip") is devices[0]
    with pytest.raises(UnsupportedModel, match=r"'chip:3' here; there are chip:2, chip:1, other$"):
        named_device(devices, "chip:3")


def test_the_fastest_device_that_supports_a_node_gets_it() -> None:
    slow = candidate("slow", [True, True, False], time=0.9)
    fast = candidate("fast", [True, False, False], time=0.2)
    chosen = best_devices(chain(3), [slow, fast])
    assert names([*chosen]) == ["fast", "slow", None]


def test_low_power_compares_the_power() -> None:
    fast = candidate("fast", [True], time=0.2, power=0.9)
    sparing = candidate("sparing", [True], time=0.8, power=0.1)
    for preference in Preference:
        wanted = "sparing" if preference is Preference.LOW_POWER else "fast"
        assert names([*best_devices(chain(1), [fast, sparing], preference)]) == [wanted]


def test_of_equal_devices_a_cpu_is_taken_and_else_the_first() -> None:
    one, two = candidate("one", [True]), candidate("two", [True])
    cpu = candidate("cpu", [True], kind=DeviceType.CPU)
    assert names([*best_devices(chain(1), [one, two])]) == ["one"]
    assert names([*best_devices(chain(1), [one, cpu, two])]) == ["cpu"]


def test_reduced_precision_counts_only_where_it_is_allowed() -> None:
    cpu = candidate("cpu", [True], time=0.3, kind=DeviceType.CPU)
    relaxed = candidate("relaxed", [True], time=0.5, relaxed=Performance(0.2, 1))
    assert names([*best_devices(chain(1), [cpu, relaxed])]) == ["cpu"]
    assert names([*best_devices(chain(1), [cpu, relaxed], allow_fp16=True)]) == ["relaxed"]


def test_independent_subsets_are_those_of_the_example() -> None:
    # 0 and 1 feed 2 and 4; 2 feeds 3; 3 and 4 feed 5. Odd ones out: 2 and 3.
    model = graph(([0], [1]), ([1], [2]), ([2], [3]), ([3], [4]), ([2], [5]), ([4, 5], [6]))
    labels = ["device", "device", None, None, "device", "device"]
    subsets = independent_subsets(model, labels)
    assert [subset.nodes for subset in subsets] == [(0, 1, 4), (2, 3), (5,)]
    assert [subset.label for subset in subsets] == ["device", None, "device"]


def test_subsets_of_several_devices_run_in_order() -> None:
    model = chain(6)
    subsets = independent_subsets(model, ["a", "a", "b", "b", None, "a"])
    assert [(subset.label, subset.nodes) for subset in subsets] == [
        ("a", (0, 1)),
        ("b", (2, 3)),
        (None, (4,)),
        ("a", (5,)),
    ]


def test_a_node_before_its_producer_in_the_file_waits_for_it() -> None:
    model = graph(([1], [2]), ([0], [1]), outputs=[2])
    assert [subset.nodes for subset in independent_subsets(model, ["a", "a"])] == [(1, 0)]


def test_operators_with_state_keep_their_order() -> None:
    # Nothing but their order ties the read to the assignment before it.
    model = graph(
        ([0], [1]),
        ([1], []),
        ([1], [3]),
        outputs=[3],
        operators=["VAR_HANDLE", "ASSIGN_VARIABLE", "READ_VARIABLE"],
    )
    subsets = independent_subsets(model, ["a", None, "a"])
    assert [subset.nodes for subset in subsets] == [(0,), (1,), (2,)]
    free = replace(model, nodes=tuple(replace(node, operator="ADD") for node in model.nodes))
    assert [subset.nodes for subset in independent_subsets(free, ["a", None, "a"])] == [
        (0, 2),
        (1,),
    ]


def test_a_circle_is_no_graph() -> None:
    with pytest.raises(ValueError, match="circle"):
        independent_subsets(graph(([2], [1]), ([1], [2])), ["a", "a"])


def partitions(sizes: list[int], most: int, least_nodes: int = 0) -> list[int]:
    """Nodes of the partitions taken of a chain with one unsupported node between each two."""
    labels: list[str | None] = []
    for size in sizes:
        labels += [*["device"] * size, None]
    labels.pop()
    subsets = independent_subsets(chain(len(labels)), labels)
    assert [len(subset.nodes) for subset in subsets if subset.label] == sizes
    mine = [subset for subset in subsets if subset.label]
    return [len(subset.nodes) for subset in largest(mine, most, least_nodes)]


@pytest.mark.parametrize(
    ("sizes", "most", "taken"),
    [
        ([3, 2], 1, [3]),
        ([3, 2], 0, [3, 2]),
        ([3, 2], -1, [3, 2]),
        ([3, 2], 3, [3, 2]),
        ([2, 3], 1, [3]),
        ([1, 5, 2, 4], 2, [5, 4]),
        ([2, 2, 2], 2, [2, 2]),
    ],
)
def test_the_largest_partitions_are_taken(sizes: list[int], most: int, taken: list[int]) -> None:
    assert partitions(sizes, most) == taken


def test_small_partitions_are_left_to_the_cpu() -> None:
    assert partitions([1, 5, 2, 4], 0, least_nodes=3) == [5, 4]
    assert partitions([1, 5, 2, 4], 1, least_nodes=6) == []


def test_the_border_of_a_partition_is_what_others_need() -> None:
    model = graph(([0], [1]), ([1], [2]), ([1, 2], [3]), ([3], [4]), outputs=[4, 2])
    partition = partition_of(model, [2, 1])
    assert partition.nodes == (1, 2)
    assert partition.inputs == (1,)
    assert partition.outputs == (2, 3)


def test_constants_and_left_out_inputs_are_no_border() -> None:
    model = graph(([0, 1, -1], [2]), outputs=[2])
    constant = replace(model.tensors[1], data=(100, 40))
    model = replace(model, tensors=(model.tensors[0], constant, model.tensors[2]))
    assert partition_of(model, [0]).inputs == (0,)


def test_a_partition_gains_what_its_operators_save_less_the_hand_over() -> None:
    model = chain(4)  # of ten elements each
    device = candidate("device", [True] * 4, time=0.25, overhead=20).capabilities
    cpu = Performance(0.5, 1)
    assert gain(model, [0, 1], device, lambda _: cpu, allow_fp16=False) == -15
    assert gain(model, range(4), device, lambda _: cpu, allow_fp16=False) == -10
    free = replace(device, partition_overhead=0)
    assert gain(model, range(4), free, lambda _: cpu, allow_fp16=False) == 10


def test_what_keeps_state_does_so_for_devices_too() -> None:
    writer = ModelWriter()
    graph = writer.subgraph()
    seed = graph.input("seed", TensorType.UINT64, (2,))
    after, numbers = (graph.tensor(name, TensorType.UINT64, (2,)) for name in ("after", "numbers"))
    graph.operator(BuiltinOperator.STABLEHLO_RNG_BIT_GENERATOR, [seed], [after, numbers])
    graph.output(numbers)
    assert not read_view(writer.write()).stateless
