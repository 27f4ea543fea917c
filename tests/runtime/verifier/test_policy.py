"""The profiles: what each allows, and that a refusal names the operator and the rule."""

from __future__ import annotations

import pytest

from loader_service.broker.settings import OPERATOR_PROFILES
from loader_service.runtime.failures import LimitReached, UnsupportedModel
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import TensorType
from loader_service.runtime.verifier.policy import CARRIED, PROFILES
from loader_service.runtime.verifier.verify import verify
from loader_service.writer import costly, hostile, small, stateful
from loader_service.writer.model import ModelWriter
from loader_service.writer.warm_up import warm_up_model
from model_loader._embedded import OPERATORS
from tests.shared_models import SharedModel, each_model

HARDENED = PROFILES["hardened"]


def one(code: BuiltinOperator | str, version: int = 1) -> bytes:
    """A model of one operator from x to y."""
    model = ModelWriter()
    graph = model.subgraph()
    x = graph.input("x", TensorType.FLOAT32, (1,))
    y = graph.tensor("y", TensorType.FLOAT32, (1,))
    graph.operator(code, [x], [y], version=version)
    graph.output(y)
    return model.write()


@each_model(runs=True)
def test_every_model_that_runs_is_accepted(shared_model: SharedModel) -> None:
    verify(shared_model.read())


def test_our_own_models_are_accepted() -> None:
    makers = (
        small.add, small.scalar, small.zero_size, small.dynamic_batch, small.dynamic_image,
        small.dynamic_output, small.two_signatures, small.repeated_names, small.empty_names,
        small.no_inputs, small.no_outputs, small.fill, stateful.counter, stateful.running_sum,
        costly.work, costly.endless, costly.memory_hog, costly.memory_hog_on_demand,
        warm_up_model,
    )  # fmt: skip
    for make in makers:
        verify(make())
    for tensor_type in (TensorType.FLOAT32, TensorType.INT8, TensorType.STRING, TensorType.BOOL):
        verify(small.identity(tensor_type))


def test_settings_and_client_know_the_same_profiles() -> None:
    assert set(OPERATOR_PROFILES) == set(OPERATORS) == set(PROFILES)


def test_hardened_is_a_part_of_standard() -> None:
    assert len(HARDENED.builtin) == 77
    assert set(HARDENED.builtin) < set(PROFILES["standard"].builtin)
    assert not HARDENED.custom


@pytest.mark.parametrize("profile", PROFILES)
def test_an_unknown_custom_operator_is_named(profile: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"operator 0 \(NobodyKnowsThis\): "):
        verify(hostile.custom_operator(), operators=profile)
    with pytest.raises(UnsupportedModel, match=r"operator 0 \(FlexSoftplus\): "):
        verify(hostile.flex_operator(), operators=profile)


@pytest.mark.parametrize("code", sorted(CARRIED))
def test_hardened_refuses_the_runtimes_own_custom_operators(code: str) -> None:
    verify(one(code))
    with pytest.raises(UnsupportedModel, match="allows no custom operator"):
        verify(one(code), operators="hardened")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (costly.endless, r"operator 1 \(WHILE\): .* runs another subgraph"),
        (stateful.counter, r"\(CALL_ONCE\)|\(VAR_HANDLE\)"),
        (stateful.running_sum, r"operator 0 \(SVDF\): .* no such operator"),
        (lambda: small.identity(TensorType.STRING), "allows no string tensor"),
    ],
    ids=["loop", "resource", "state", "strings"],
)
def test_hardened_refuses_what_is_more_than_arithmetic(make: object, says: str) -> None:
    assert callable(make)
    verify(make())
    with pytest.raises(UnsupportedModel, match=says):
        verify(make(), operators="hardened")


def test_hardened_takes_an_ordinary_network() -> None:
    verify(warm_up_model(), operators="hardened")
    verify(small.add(), operators="hardened")


def test_a_later_version_is_refused_by_name_and_number() -> None:
    verify(one(BuiltinOperator.RELU, version=3))
    with pytest.raises(UnsupportedModel, match=r"operator 0 \(RELU\): version 4 came after 3"):
        verify(one(BuiltinOperator.RELU, version=4))


def test_a_certain_need_of_memory_meets_the_limit_before_it_is_allocated() -> None:
    verify(costly.memory_hog(1), memory_bytes=1 << 30)
    with pytest.raises(LimitReached, match=r"operator 0 \(BROADCAST_TO\)") as caught:
        verify(costly.memory_hog(1), memory_bytes=(1 << 30) - 1)
    failure = caught.value
    assert (failure.limit, failure.value, failure.maximum) == (
        "memory_bytes",
        1 << 30,
        (1 << 30) - 1,
    )
    verify(costly.memory_hog_on_demand(), memory_bytes=1 << 20)
