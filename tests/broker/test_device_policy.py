"""Which devices a load may use: policy, options that nobody honours, and the web."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loader_service.broker.device_policy import (
    device_order,
    require_honoured,
    without_missing,
)
from loader_service.broker.groups import Owner
from loader_service.broker.refusal import Refusal
from loader_service.broker.settings import Policy
from loader_service.devices.catalogue import Enabled, enabled_devices
from loader_service.sandbox.grants import Grants
from model_loader_wire.causes import Cause
from model_loader_wire.v1 import model_loader_pb2 as pb

LIBRARY = "/proc/self/exe"
"""Any file that is there: the broker only looks whether it is."""
DEVICES = (f"external:a={LIBRARY}", "external:gone=/no/such.so", f"external:b={LIBRARY}")
OWN = Owner(1000, "program:/usr/bin/app")
WEB = Owner(1000, "https://example.com")
POLICY = Policy(name="test", devices=DEVICES)
EMBEDDER = Policy(name="browser", devices=DEVICES, embedder=True)


def header(**options: Any) -> pb.LoadHeader:
    named = {key: options.pop(key) for key in [*options] if key.endswith("power_preference")}
    device = options.pop("device_preference", "auto")
    made = pb.LoadHeader(device_preference=device, **named)
    if options:
        made.device_options.CopyFrom(pb.DeviceOptions(**options))
    return made


def names(devices: tuple[Enabled, ...]) -> list[str]:
    return [device.name for device in devices]


def refused(policy: Policy, owner: Owner, **options: Any) -> tuple[Cause, str]:
    with pytest.raises(Refusal) as caught:
        device_order(policy, owner, header(**options))
    return caught.value.failure.cause, caught.value.failure.message


def test_a_load_without_options_has_nothing_to_do_with_devices() -> None:
    for preferences in (
        {},
        {"power_preference": "low-power"},
        {"device_preference": "cpu"},
    ):
        assert device_order(POLICY, OWN, header(**preferences)) is None
    assert device_order(Policy(name="none"), OWN, header(device_preference="gpu")) is None


def test_an_option_opens_all_enabled_devices_in_the_operators_order() -> None:
    order = device_order(POLICY, OWN, header(execution_preference="undefined"))
    assert order is not None
    assert names(order.enabled) == [
        "external:a",
        "external:gone",
        "external:b",
        "reference",
        "xnnpack",
    ]
    assert not order.coarse


def test_a_named_device_is_opened_alone() -> None:
    order = device_order(POLICY, OWN, header(accelerator_name="external:b"))
    assert order is not None
    assert names(order.enabled) == ["external:b", "reference", "xnnpack"]


def test_a_preference_for_gpus_never_fails() -> None:
    order = device_order(POLICY, OWN, header(device_preference="gpu"))
    assert order is not None
    assert order.wish(5.0) == {
        "options": {},
        "device_preference": "gpu",
        "seconds": 5.0,
        "coarse": False,
    }


@pytest.mark.parametrize(
    ("power", "given", "meant"),
    [
        ("low-power", {"allow_fp16": None}, "low_power"),
        ("high-performance", {}, "fast_single_answer"),
        ("auto", {}, None),
        ("low-power", {"execution_preference": "sustained_speed"}, "sustained_speed"),
        ("low-power", {"execution_preference": "undefined"}, "undefined"),
    ],
)
def test_the_power_preference_stands_in_for_an_execution_preference(
    power: str, given: dict[str, Any], meant: str | None
) -> None:
    options = {"disallow_nnapi_cpu": True, **{k: v for k, v in given.items() if v is not None}}
    order = device_order(POLICY, OWN, header(power_preference=power, **options))
    assert order is not None
    assert order.options.execution_preference == meant


def test_a_device_that_is_not_enabled_is_refused_by_name() -> None:
    cause, words = refused(POLICY, OWN, accelerator_name="openvino")
    assert cause is Cause.UNSUPPORTED
    assert words == (
        "there is no device 'openvino' here; there are external:a, external:gone, external:b, "
        "reference, xnnpack: others must be enabled where the service is started (devices, "
        "--device)"
    )


def test_a_named_device_that_is_missing_is_an_error() -> None:
    cause, words = refused(POLICY, OWN, accelerator_name="external:gone")
    assert cause is Cause.UNSUPPORTED
    assert "the device 'external:gone' cannot be used" in words


@pytest.mark.parametrize(
    ("options", "ignored"),
    [
        ({"allow_fp16": True}, "allow_fp16"),
        ({"cache_token": bytes(32), "allow_fp16": False}, "allow_fp16, cache_token"),
        ({"accelerator_name": "reference", "min_nodes_per_partition": 2}, "min_nodes"),
        ({"accelerator_name": "external:a", "disallow_nnapi_cpu": True}, "disallow_nnapi_cpu"),
    ],
)
def test_options_that_no_device_at_hand_honours_are_refused_by_name(
    options: dict[str, Any], ignored: str
) -> None:
    cause, words = refused(POLICY, OWN, **options)
    assert cause is Cause.UNSUPPORTED
    assert f"no device at hand honours {ignored}" in words


def test_a_device_that_is_missing_or_disabled_honours_nothing() -> None:
    gone = Policy(name="test", devices=("external:gone=/no/such.so",))
    cause, words = refused(gone, OWN, min_nodes_per_partition=2)
    assert (cause, words) == (
        Cause.UNSUPPORTED,
        "no device at hand honours min_nodes_per_partition; there are reference, xnnpack",
    )
    order = device_order(POLICY, OWN, header(min_nodes_per_partition=2))
    assert order is not None
    require_honoured(order.options, order.enabled)
    with pytest.raises(Refusal, match="honours min_nodes_per_partition"):
        require_honoured(
            order.options, [replace(each, disabled="it crashed") for each in order.enabled]
        )


def test_what_is_missing_just_now_is_disabled_for_a_load(tmp_path: Path) -> None:
    library = tmp_path / "c.so"
    library.touch()
    policy = Policy(name="test", devices=(*DEVICES, f"external:c={library}"))
    order = device_order(policy, OWN, header(execution_preference="undefined"))
    assert order is not None
    failed = replace(order.enabled[0], disabled="its test ended by SIGABRT")
    order = replace(order, enabled=(failed, *order.enabled[1:]))
    assert [bool(device.disabled) for device in without_missing(order).enabled] == [
        *(True, True, False, False),  # external:a failed, external:gone is not there
        *(False, False),
    ]
    assert without_missing(order).enabled[0] == failed
    library.unlink()
    gone = without_missing(order).enabled[3]
    assert gone.disabled == f"the library of external:c is not there: {library}"


def test_options_that_cannot_be_are_invalid() -> None:
    cause, words = refused(POLICY, OWN, execution_preference="fast")
    assert (cause, words.split()[0]) == (Cause.INVALID_INPUT, "execution_preference")


def test_the_web_learns_nothing_of_the_hardware_by_asking() -> None:
    for device in ("external:a", "external:none", "reference"):
        cause, words = refused(EMBEDDER, WEB, accelerator_name=device)
        assert cause is Cause.UNSUPPORTED
        assert words == "origins of the web may not give the options accelerator_name"
    _, words = refused(EMBEDDER, WEB, allow_fp16=True, cache_token=bytes(32))
    assert words.endswith("allow_fp16, cache_token")


def test_the_web_is_not_told_whether_any_device_is_enabled() -> None:
    for policy in (EMBEDDER, Policy(name="browser", embedder=True)):
        order = device_order(policy, WEB, header(device_preference="gpu"))
        assert order is not None
        assert order.coarse


def test_the_web_gets_devices_and_a_coarse_report() -> None:
    order = device_order(EMBEDDER, WEB, header(execution_preference="low_power"))
    assert order is not None
    assert order.coarse
    own = device_order(EMBEDDER, OWN, header(accelerator_name="external:a"))
    assert own is not None
    assert not own.coarse


def test_the_cpus_devices_are_there_without_being_enabled() -> None:
    assert enabled_devices(["reference", "xnnpack"]) == ()
    order = device_order(Policy(name="none"), OWN, header(accelerator_name="xnnpack"))
    assert order is not None
    assert names(order.enabled) == ["xnnpack", "reference"]


def test_a_device_is_enabled_once() -> None:
    with pytest.raises(ValueError, match="'external:a' is enabled twice"):
        enabled_devices([f"external:a={LIBRARY}", "external:a=/another.so"])


def test_grants_are_said_in_sentences() -> None:
    assert Grants().sentences() == ()
    granted = Grants(("/dev/npu",), ("executable-memory",), "a.tflite", ("/lib/a.so",), 3)
    said = granted.sentences()
    assert Grants.from_fields(granted.to_fields()) == granted
    for word in ("/dev/npu", "/lib/a.so", "executable-memory", "a.tflite", "3 more threads"):
        assert sum(word in sentence for sentence in said) == 1
