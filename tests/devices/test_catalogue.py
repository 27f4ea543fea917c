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


def test_names_are_read() -> None:
    assert enabled_from_text("openvino") == Enabled("openvino")
    coral = enabled_from_text("external:coral=/opt/coral.so,port=usb,level=")
    assert coral == Enabled("external:coral", "/opt/coral.so", (("port", "usb"), ("level", "")))
    assert (coral.kind, Enabled("openvino").kind) == ("external", "openvino")
    assert Enabled.from_fields(coral.to_fields()) == coral


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no device is called ''"),
        ("npu", "no device is called 'npu'"),
        ("openvino:CPU", "no device is called"),
        ("openvino=/lib.so", "has no library"),
        ("external", "no device is called"),
        ("external:coral", "needs a library"),
        ("external:coral=", "needs a library"),
        ("external:coral=lib.so", "must be an absolute path"),
        ("external:Coral=/lib.so", "is no name of a device"),
        ("external:=/lib.so", "is no name of a device"),
        ("external:coral=/lib.so,fast", "must be KEY=VALUE"),
        ("external:coral=/lib.so,=yes", "must be KEY=VALUE"),
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
