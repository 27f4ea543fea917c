"""`model-loader doctor`: what is there, what is missing, and how to get it."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loader_service.runtime.runtimes import installed_runtimes
from loader_service.sandbox.layers import MINIMUM, Layer
from loader_service.sandbox.probe import probe
from model_loader_cli.checks.configuration import CheckedConfiguration, check_configuration
from model_loader_cli.checks.daemon import Daemon, look_for_daemon
from model_loader_cli.checks.host import Host, container_advice, container_kind
from model_loader_cli.checks.layers import ProbeFailed, TriedLayer, try_layers
from model_loader_cli.checks.runtimes import InstalledRuntime, look_at_runtimes
from model_loader_cli.checks.trial import Trial
from model_loader_cli.commands.doctor import Diagnosis, show
from tests.cli.conftest import Command, document, run_command

DOCKER = Host("Linux", "6.1", "x86_64", "3.11.7", 1000, "docker")


def diagnosis(
    withheld: Sequence[Layer] = (), *, works: bool = True, host: Host = DOCKER
) -> Diagnosis:
    layers = [
        TriedLayer(
            layer.value,
            layer not in withheld,
            layer in MINIMUM,
            "\x1b[31mdetail",
            "Allow user namespaces." if "namespace" in layer else f"Allow {layer}.",
            "what it does",
        )
        for layer in Layer
    ]
    runtime = InstalledRuntime("litert", "2.3.0", "", "")
    daemon = Daemon(None, "", "none")
    return Diagnosis(host, layers, "", [runtime], daemon, Trial(works, "tried"))


def shown(of: Diagnosis) -> str:
    stream = io.StringIO()
    show(Console(file=stream, markup=False, emoji=False, highlight=False, width=200), of)
    return stream.getvalue()


@pytest.mark.isolation
def test_the_findings_are_those_of_the_probe() -> None:
    done = run_command("doctor", "--json")
    value = document(done)
    found = {layer["name"]: layer["available"] for layer in value["layers"]}
    assert found == {layer.value: finding.available for layer, finding in probe().items()}
    minimum = {layer["name"] for layer in value["layers"] if layer["needed"]}
    assert minimum == {layer.value for layer in MINIMUM}
    assert value.keys() == {
        "ok",
        "host",
        "layers",
        "problem",
        "runtimes",
        "devices",
        "daemon",
        "configuration",
        "trial",
        "advice",
    }
    assert value["ok"] is True
    assert done.returncode == 0
    versions = {runtime["name"]: runtime["version"] for runtime in value["runtimes"]}
    assert {name: version for name, version in versions.items() if version} == {
        runtime.name: runtime.version for runtime in installed_runtimes()
    }
    assert value["trial"]["works"] is True
    assert set(value["trial"]["layers"]) <= set(found)


def test_a_running_service_is_found(command: Command, daemon: Path) -> None:
    value = document(command("doctor", "--json"))
    assert value["daemon"]["directory"] == str(daemon)
    assert "version 0" in value["daemon"]["detail"]
    # Not in the state of the host, but of the service: what it lacks is what the host lacks.
    lacks = [layer["name"] for layer in value["layers"] if not layer["available"]]
    problems = value["daemon"]["problems"]
    assert len(problems) == len(lacks)
    for name, problem in zip(lacks, problems, strict=True):
        assert problem.startswith(f"its workers do without the layer {name}: ")


def test_a_service_that_was_named_and_is_not_there_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_LOADER_ADDRESS", str(tmp_path))
    for named in (None, str(tmp_path)):
        found = look_for_daemon(named)
        assert found.detail == "none where one was named: programs look nowhere else"
        (problem,) = found.problems
        assert f"looked in {tmp_path}" in problem


def test_mistakes_in_the_daemons_configuration_are_told() -> None:
    wrong = {"MODEL_LOADER_LIMITS_THREADS": "many", "MODEL_LOADER_SERVICE_NOTHING": "1"}
    value = document(run_command("doctor", "--json", env=wrong))
    first, second = value["configuration"]["mistakes"]
    assert first.startswith("MODEL_LOADER_SERVICE_NOTHING: there is no such setting")
    assert second == "MODEL_LOADER_LIMITS_THREADS: must be a whole number, not 'many'"
    found = check_configuration()
    assert found == CheckedConfiguration(found.file, ())


def test_what_is_wrong_with_the_service_is_shown_and_models_run_all_the_same() -> None:
    of = replace(
        diagnosis(),
        daemon=Daemon("/d", "1", "version 1 at /d", ("it is draining",)),
        configuration=CheckedConfiguration("/etc/x", ("/etc/x:3: limits.thread: no such",)),
    )
    text = shown(of)
    assert "it is draining" in text
    assert "1 mistakes: model-loaderd would not start" in text
    assert "/etc/x:3: limits.thread: no such" in text
    assert of.fit
    assert "in order: no file, and the environment" in shown(diagnosis())


def test_the_text_names_every_layer() -> None:
    done = run_command("doctor")
    assert done.returncode == 0
    for layer in Layer:
        assert f"  {layer.value}" in done.stdout
    assert "Models run here" in done.stdout


def test_all_layers_are_all_layers() -> None:
    of = diagnosis()
    assert of.fit
    assert of.advice() == {}
    assert "Models run here, behind every layer." in shown(of)
    assert "To get what is missing" not in shown(of)
    assert "\x1b" not in shown(of)


def test_a_missing_layer_is_named_with_what_to_do_about_it() -> None:
    of = diagnosis([Layer.USER_NAMESPACE, Layer.PID_NAMESPACE, Layer.CGROUP_MEMORY])
    assert of.fit
    text = shown(of)
    assert "  no   user-namespace " in text
    assert "  yes  seccomp (needed) " in text
    assert "  user-namespace, pid-namespace\n    Allow user namespaces.\n" in text
    assert "  cgroup-memory\n    Allow cgroup-memory.\n" in text
    assert "without these layers: user-namespace, pid-namespace, cgroup-memory." in text


def test_a_container_that_withholds_layers_is_told_how_to_be_started() -> None:
    text = shown(diagnosis([Layer.USER_NAMESPACE]))
    assert "In this docker container: start it with --security-opt seccomp=unconfined" in text
    for layer in (Layer.CGROUP_MEMORY, Layer.UNPRIVILEGED_UID):
        assert "container" not in "".join(diagnosis([layer]).advice())
    outside = Host("Linux", "6.1", "x86_64", "3.11.7", 1000, "")
    assert "container" not in "".join(diagnosis([Layer.USER_NAMESPACE], host=outside).advice())


@pytest.mark.parametrize("layer", sorted(MINIMUM))
def test_without_the_minimum_nothing_runs(layer: Layer) -> None:
    of = diagnosis([layer])
    assert not of.fit
    assert f"  NO   {layer.value} (needed)" in shown(of)
    assert "Models cannot run here yet" in shown(of)


def test_layers_alone_are_not_enough() -> None:
    assert not diagnosis(works=False).fit
    nothing_known = Diagnosis(DOCKER, (), "no probe", (), Daemon(None, "", ""), Trial(True, ""))
    assert not nothing_known.fit
    assert "no probe" in shown(nothing_known)


@pytest.mark.parametrize(
    ("mark", "content", "variables", "kind"),
    [
        ("", "", {}, ""),
        (".dockerenv", "", {}, "docker"),
        ("run/.containerenv", "", {}, "podman"),
        ("run/systemd/container", "lxc\n", {}, "lxc"),
        ("", "", {"container": "systemd-nspawn"}, "systemd-nspawn"),
        (".dockerenv", "", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    ],
)
def test_containers_are_known_by_their_marks(
    tmp_path: Path, mark: str, content: str, variables: dict[str, str], kind: str
) -> None:
    if mark:
        (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mark).write_text(content)
    assert container_kind(tmp_path, variables) == kind
    assert bool(container_advice(kind)) == bool(kind)


def test_a_probe_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ProbeFailed, match="exit status 1"):
        try_layers()


def test_a_runtime_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for runtime in look_at_runtimes():
        assert (runtime.version, runtime.detail) == ("", "exit status 1")
        assert "pip install" in runtime.remedy
