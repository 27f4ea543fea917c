"""The schema's tables agree with the code that FlatBuffers' own compiler made from the schema."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from loader_service.runtime import schema, schema_builtin_options, schema_options
from loader_service.runtime.schema import Field, Scalar, ScalarField, Table, VectorField
from loader_service.runtime.schema_operators import BuiltinOperator
from loader_service.runtime.schema_tensor_types import ELEMENT_BITS, TensorType

TABLES = {
    table.name: table
    for table in (
        *schema.TABLES,
        *schema_builtin_options.BUILTIN_OPTIONS.values(),
        *schema_builtin_options.BUILTIN_OPTIONS_2.values(),
        *(known.table for known in schema_options.OPTIONS.values()),
    )
}


@pytest.fixture(scope="module")
def generated() -> Any:
    return pytest.importorskip(
        "ai_edge_litert.schema_py_generated", reason="ai_edge_litert is not installed here"
    )


def _numbers(enumeration: Any) -> dict[str, int]:
    return {name: value for name, value in vars(enumeration).items() if isinstance(value, int)}


def test_every_operator_and_type_is_known(generated: Any) -> None:
    assert {code.name: code.value for code in BuiltinOperator} == _numbers(
        generated.BuiltinOperator
    )
    assert {code.name: code.value for code in TensorType} == _numbers(generated.TensorType)
    assert set(ELEMENT_BITS) == set(TensorType)


def test_options_are_numbered_as_in_the_union(generated: Any) -> None:
    members = _numbers(generated.BuiltinOptions)
    for known in schema_options.OPTIONS.values():
        assert members[known.table.name] == known.member
    for number, table in schema_builtin_options.BUILTIN_OPTIONS.items():
        assert members[table.name] == number
    assert len(schema_builtin_options.BUILTIN_OPTIONS) == len(members) - 1
    second = _numbers(generated.BuiltinOptions2)
    for number, table in schema_builtin_options.BUILTIN_OPTIONS_2.items():
        assert second[table.name] == number
    assert len(schema_builtin_options.BUILTIN_OPTIONS_2) == len(second) - 1
    padding, activation = schema_options.Padding, schema_options.Activation
    assert {code.name: code.value for code in padding} == _numbers(generated.Padding)
    assert {code.name: code.value for code in activation} == _numbers(
        generated.ActivationFunctionType
    )


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_fields_have_the_slots_and_types_of_the_schema(generated: Any, table: Table) -> None:
    source = inspect.getsource(generated)
    for name, field in table.fields.items():
        spelled = "".join(word[0].upper() + word[1:] for word in name.split("_"))
        adder = re.search(
            rf"def {table.name}Add{spelled}\(builder, \w+\):\s+builder\.Prepend(\w+)Slot"
            rf"\((\d+), .*, ([^,\n]+)\)\n",
            source,
        )
        assert adder, f"{table.name} has no field {spelled}"
        kind, slot, default = adder.groups()
        assert int(slot) == field.slot
        assert _kind(field) == kind
        if isinstance(field, ScalarField):
            assert float(default) == field.default
        if isinstance(field, VectorField):
            _assert_element(getattr(generated, table.name), spelled, field.scalar)


def _kind(field: Field) -> str:
    """The word that the generated code uses for a field's kind."""
    if isinstance(field, ScalarField):
        return field.scalar.name.capitalize()
    return "UOffsetTRelative"


def _assert_element(table: Any, name: str, scalar: Scalar) -> None:
    """The generated accessor of a vector reads numbers of that type."""
    assert f"number_types.{scalar.name.capitalize()}Flags" in inspect.getsource(
        getattr(table, name)
    )
