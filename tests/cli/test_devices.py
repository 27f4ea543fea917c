"""Devices on the command line: chosen, refused, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import model_loader as ml
from loader_service.writer.small import add
from model_loader_cli.devices import context_options, private_devices
from tests.cli.conftest import Command, document, run_command
from tests.devices.little_delegate import compile_delegate
from tests.support.daemon import Daemon
from tests.support.host import user_namespaces_usable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.isolation


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "add.tflite"
    path.write_bytes(add())
    return path


@pytest.mark.parametrize(
    ("device", "enabled", "name"),
    [
        ("reference", (), "reference"),
        ("openvino", ("openvino",), "openvino"),
        ("openvino:CPU", ("openvino",), "openvino:CPU"),
        ("external:a=/a.so,b=c", ("external:a=/a.so,b=c",), "external:a"),
        ("openvino=/a.so", ("openvino=/a.so",), "openvino"),
        ("", (), ""),
    ],
)
def test_a_private_service_has_the_device_that_is_named(
    device: str, enabled: tuple[str, ...], name: str
) -> None:
    assert private_devices({"device": device}) == enabled
    assert context_options({"device": device}) == {"accelerator_name": name}


def test_run_reports_the_device_that_was_named(command: Command, model: Path) -> None:
    done = command("run", model, "--random", 1, "--device", "reference", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)["delegation"]
    (partition,) = report["partitions"]
    assert (partition["device"], partition["operators"]) == ("reference", {"ADD": 1})
    assert partition["share"] == 1
    shown = command("run", model, "--random", 1, "--device", "reference").stdout
    assert "reference" in shown
    assert "1 ADD" in shown


def test_run_without_devices_reports_none(command: Command, model: Path) -> None:
    assert json.loads(command("run", model, "--random", 1, "--json").stdout)["delegation"] is None


def test_a_device_that_is_not_there_ends_the_command(command: Command, model: Path) -> None:
    done = command("run", model, "--random", 1, "--device", "external:x=/no/such.so")
    assert done.returncode == 1
    assert "there is no device 'external:x' here" in done.stderr
    done = command("run", model, "--random", 1, "--device", "reference", "--allow-fp16")
    assert done.returncode == 1
    assert "no device at hand honours allow_fp16" in done.stderr


def test_inspect_tells_who_would_run_what(command: Command, model: Path) -> None:
    done = command("inspect", model, "--devices", "--device", "xnnpack", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert document["loads"]
    assert document["delegation"]["partitions"][0]["device"] == "xnnpack"
    assert "delegation" not in json.loads(command("inspect", model, "--json").stdout)


def test_doctor_shows_devices_and_their_grants(command: Command) -> None:
    devices = {
        item["name"]: item for item in json.loads(command("doctor", "--json").stdout)["devices"]
    }
    assert set(devices) == {"reference", "xnnpack", "openvino"}
    assert devices["xnnpack"]["always"]
    assert devices["xnnpack"]["grants"] == []
    openvino = devices["openvino"]
    assert bool(openvino["grants"]) == openvino["available"] != bool(openvino["detail"])


@pytest.mark.slow
def test_status_tells_what_the_self_tests_of_a_service_have_found(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = compile_delegate(tmp_path_factory.mktemp("delegate"))
    enabled = f"external:good={library},external:bad={library},fault=create"
    monkeypatch.setenv("MODEL_LOADER_SERVICE_DEVICES", enabled)
    with Daemon() as daemon:

        def devices() -> list[dict[str, Any]]:
            found = document(run_command("status", "--json", "--address", daemon.directory))
            listed: list[dict[str, Any]] = found["devices"]
            return listed

        wait_until(lambda: all(device["tested"] for device in devices()), "the self-tests")
        good, bad = devices()
        assert good == {"name": "external:good", "tested": True, "disabled": ""}
        assert (bad["name"], bad["tested"]) == ("external:bad", True)
        assert bad["disabled"].startswith("the library makes no delegate")
        text = run_command("status", "--address", daemon.directory).stdout
        shown = [" ".join(line.split()) for line in text.splitlines()]
        assert "device external:good" in shown
        assert any(line.startswith("device external:bad, disabled: the lib") for line in shown)


@pytest.mark.slow
def test_doctor_tries_the_devices_of_the_configuration(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    library = compile_delegate(tmp_path_factory.mktemp("delegate"), threads=2)
    configured = f"external:good={library},external:bad={library},fault=create"
    configuration = {"MODEL_LOADER_SERVICE_DEVICES": configured}
    done = run_command("doctor", "--json", env=configuration)
    devices = {item["name"]: item for item in json.loads(done.stdout)["devices"]}
    good, bad = devices["external:good"], devices["external:bad"]
    assert good["enabled"]
    assert good["grants"] == ["12 more threads", "a process executed afresh"]
    assert (bad["enabled"], bad["available"], bad["grants"]) == (True, False, [])
    assert bad["detail"].startswith("the library makes no delegate")
    assert not devices["openvino"]["enabled"]
    lines = [line.split() for line in run_command("doctor", env=configuration).stdout.splitlines()]
    marks = {line[1]: line[0] for line in lines if len(line) > 1}
    assert (marks["external:good"], marks["external:bad"]) == ("yes", "no")


@pytest.mark.slow
@pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)
def test_ps_shows_what_a_model_s_device_was_granted(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = compile_delegate(tmp_path_factory.mktemp("delegate"))
    with (
        ml.embed(devices=[f"external:little={library},/dev/zero"]) as connection,
        ml.create_context(connection=connection, accelerator_name="external") as context,
        ml.MLModelLoader(context).load(model),
        ml.MLModelLoader(ml.create_context(connection=connection)).load(model),
    ):
        place = {"MODEL_LOADER_ADDRESS": str(connection.address)}
        rows = document(run_command("ps", "--json", env=place))["models"]
        granted = ["opens /dev/zero", "system calls: device-nodes"]
        assert sorted(row["devices"].get("external:little", []) for row in rows) == [[], granted]
        said = run_command("ps", env=place).stdout
        assert f"external:little has in its workers: {'; '.join(granted)}" in said
