"""The options for devices: NNAPI's names, checked once for client, broker and worker."""

from __future__ import annotations

import pytest

from model_loader_wire.device_options import TOKEN_BYTES, DeviceOptions

TOKEN = bytes(range(TOKEN_BYTES))


def test_nothing_is_given_by_default() -> None:
    assert DeviceOptions().given() == {}


def test_what_is_given_travels() -> None:
    options = DeviceOptions(
        accelerator_name="openvino",
        execution_preference="low_power",
        allow_fp16=False,
        max_number_delegated_partitions=-1,
        cache_token=TOKEN,
    )
    assert options.given()["allow_fp16"] is False
    assert DeviceOptions.from_fields(options.to_fields()) == options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accelerator_name", ""),
        ("accelerator_name", "a" * 81),
        ("accelerator_name", "a\x1b"),
        ("accelerator_name", 3),
        ("execution_preference", "fast"),
        ("execution_preference", 1),
        ("allow_fp16", 1),
        ("max_number_delegated_partitions", True),
        ("max_number_delegated_partitions", 2**31),
        ("min_nodes_per_partition", "3"),
        ("disallow_nnapi_cpu", "no"),
        ("cache_token", TOKEN[1:]),
        ("cache_token", TOKEN.hex()),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        DeviceOptions(**{name: value})  # type: ignore[arg-type]


def test_fields_that_are_no_options_are_refused() -> None:
    with pytest.raises(TypeError):
        DeviceOptions.from_fields({"cache_dir": "/"})
    with pytest.raises(ValueError, match="hex"):
        DeviceOptions.from_fields({"cache_token": "xyz"})
