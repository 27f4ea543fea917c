"""Names of devices as an operator writes them."""

from __future__ import annotations

import pytest

from loader_service.devices.catalogue import (
    ALWAYS,
    KINDS,
    DeviceMissing,
    Enabled,
    enabled_from_text,
    grants_of,
)
from loader_service.sandbox.granted_calls import DEVICE_NODES, OWN_FILE, rules_for


def test_names_are_read() -> None:
    assert enabled_from_text("openvino") == Enabled("openvino")
    coral = enabled_from_text("external:coral=/opt/coral.so,port=usb,level=")
    assert coral == Enabled("external:coral", "/opt/coral.so", (("port", "usb"), ("level", "")))
    assert (coral.kind, Enabled("openvino").kind) == ("external", "openvino")
    assert Enabled.from_fields(coral.to_fields()) == coral


def test_device_nodes_are_named_beside_the_options() -> None:
    device = enabled_from_text("external:zero=/proc/self/exe,/dev/zero,port=usb,/dev/null")
    assert device.nodes == ("/dev/zero", "/dev/null")
    assert device.options == (("port", "usb"),)
    assert Enabled.from_fields(device.to_fields()) == device
    grants = grants_of(device)
    assert (grants.device_nodes, grants.system_calls) == (device.nodes, ("device-nodes",))
    absent = enabled_from_text("external:none=/proc/self/exe,/dev/none")
    with pytest.raises(DeviceMissing, match="needs /dev/none, which is no device node here"):
        grants_of(absent)


def test_what_two_grants_allow_of_one_call_is_allowed_to_who_has_both() -> None:
    openat = [
        {case for rule in rules_for(granted) if rule.name == "openat" for case in rule.cases}
        for granted in ([OWN_FILE], [DEVICE_NODES], [OWN_FILE, DEVICE_NODES])
    ]
    assert openat[0] | openat[1] == openat[2]
    assert len(openat[2]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no device is called ''"),
        ("npu", "no device is called 'npu'"),
        ("openvino:CPU", "no device is called"),
        ("openvino=/lib.so", "takes no library"),
        ("external", "no device is called"),
        ("external:coral", "needs a library: external:coral=/"),
        ("external:coral=", "needs a library"),
        ("external:coral=lib.so", "must be an absolute path"),
        ("external:Coral=/lib.so", "is no name of a device"),
        ("external:=/lib.so", "is no name of a device"),
        ("external:coral=/lib.so,fast", "must be KEY=VALUE"),
        ("external:coral=/lib.so,=yes", "must be KEY=VALUE"),
        ("external:coral=/lib.so,/dev/../etc/passwd", "must be a plain path"),
        ("external:coral=/lib.so,/dev/", "must be a plain path"),
        ("external:coral=/lib.so,/dev/a,/dev/a", "needs each node once"),
        ("external:coral=/lib.so,/etc/passwd", "must be KEY=VALUE"),
    ],
)
def test_what_is_no_name_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        enabled_from_text(text)


def test_the_cpus_devices_need_nothing() -> None:
    assert all(grants_of(Enabled(name)).nothing for name in ALWAYS)
    assert set(ALWAYS) < set(KINDS)


def test_a_library_that_is_not_there_is_missing() -> None:
    with pytest.raises(DeviceMissing, match=r"the library of external:a is not there: /no/a\.so"):
        grants_of(Enabled("external:a", "/no/a.so"))
