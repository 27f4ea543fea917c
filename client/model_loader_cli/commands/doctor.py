"""`model-loader doctor`: what this host gives a sandbox, and how to get the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from rich.console import Console

from ..checks.configuration import CheckedConfiguration, check_configuration
from ..checks.daemon import Daemon, look_for_daemon
from ..checks.devices import KnownDevice, look_at_devices
from ..checks.host import Host, container_advice, look_at_host
from ..checks.layers import ProbeFailed, TriedLayer, try_layers
from ..checks.runtimes import InstalledRuntime, look_at_runtimes
from ..checks.trial import Trial, try_model
from ..exits import Exit
from ..options import json_option, running_address_option
from ..terminal import BAD, DIM, HEAD, OFF, ON, console, print_json, safe, styled

EPILOG = """\b
Examples:
  model-loader doctor
  model-loader doctor --json | jq '.layers[] | select(.available | not)'
\b
The exit status is 0 when models run here with the minimum of isolation at least, else 1; what is
wrong with a daemon, or with its configuration, is shown and changes nothing of that.
"""

YES, WITHOUT, NO, ABSENT = ("yes", ON), ("no ", OFF), ("NO ", BAD), (" - ", DIM)
"""Marks: there; missing; missing and needed; not there, and not needed."""

OF_CONTAINERS = frozenset({"user-namespace", "mount-namespace", "landlock", "seccomp"})
"""Layers that a container's profile is known to withhold; others fall with them."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found."""

    host: Host
    layers: Sequence[TriedLayer]
    problem: str
    """Why the layers could not be tried, or ""."""
    runtimes: Sequence[InstalledRuntime]
    daemon: Daemon
    trial: Trial
    devices: Sequence[KnownDevice] = ()
    configuration: CheckedConfiguration = field(default_factory=CheckedConfiguration)
    """Of a model-loaderd that this user would start."""

    @property
    def fit(self) -> bool:
        """Whether the minimum is there and a model ran."""
        minimum = all(layer.available for layer in self.layers if layer.needed)
        return bool(self.layers) and minimum and self.trial.works

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as a JSON-able object."""
        return {
            "ok": self.fit,
            "host": asdict(self.host),
            "layers": [asdict(layer) for layer in self.layers],
            "problem": self.problem,
            "runtimes": [asdict(runtime) for runtime in self.runtimes],
            "devices": [asdict(device) for device in self.devices],
            "daemon": asdict(self.daemon),
            "configuration": asdict(self.configuration),
            "trial": asdict(self.trial),
            "advice": self.advice(),
        }

    def advice(self) -> dict[str, list[str]]:
        """What to do, and the layers that come of it."""
        result: dict[str, list[str]] = {}
        for layer in self.layers:
            if not layer.available and layer.remedy:
                # "It comes with X. Do Y." is one thing to do with "Do Y.".
                same = next((known for known in result if layer.remedy.endswith(known)), None)
                result.setdefault(same or layer.remedy, []).append(layer.name)
        withheld = [layer.name for layer in self.layers if not layer.available]
        advice = container_advice(self.host.container)
        if advice and OF_CONTAINERS.intersection(withheld):
            result[f"In this {self.host.container} container: {advice}."] = [
                name for name in withheld if name in OF_CONTAINERS
            ]
        return result


@click.command(epilog=EPILOG, short_help="Try the layers of the sandbox on this host.")
@running_address_option
@json_option
def doctor(address: str | None, as_json: bool) -> int:
    """Try each layer of the sandbox for real, and say what is missing and how to get it."""
    diagnosis = diagnose(address)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        show(console(), diagnosis)
    return Exit.OK if diagnosis.fit else Exit.FAILED


def diagnose(address: str | None) -> Diagnosis:
    """Look at everything; nothing that is missing stops it."""
    host = look_at_host()
    if not host.is_linux:
        problem = (
            "Model Loader isolates models with mechanisms of the Linux kernel: on "
            f"{host.system} it works only inside a Linux container or virtual machine"
        )
        return Diagnosis(host, (), problem, (), Daemon(None, "", problem), Trial(False, problem))
    layers: Sequence[TriedLayer] = ()
    problem = ""
    try:
        layers = try_layers()
    except ProbeFailed as error:
        problem = str(error)
    configuration = check_configuration()
    return Diagnosis(
        host,
        layers,
        problem,
        look_at_runtimes(),
        look_for_daemon(address),
        try_model(),
        look_at_devices(configuration.devices, configuration.runtime),
        configuration,
    )


def show(screen: Console, diagnosis: Diagnosis) -> None:
    """Print the diagnosis for people."""
    host = diagnosis.host
    where = f", in a {host.container} container" if host.container else ""
    who = "root" if host.uid == 0 else f"uid {host.uid}"
    line = f"{host.system} {host.kernel} on {host.machine}{where}, {who}, Python {host.python}"
    screen.print(styled((safe(line), DIM)), soft_wrap=True)
    _show_title(screen, "Layers of the sandbox")
    if diagnosis.problem:
        screen.print(styled(("  " + safe(diagnosis.problem), BAD)), soft_wrap=True)
    for layer in diagnosis.layers:
        mark = YES if layer.available else NO if layer.needed else WITHOUT
        name = f"{layer.name} (needed)" if layer.needed else layer.name
        _show_line(screen, mark, name, layer.detail or layer.meaning)
    _show_title(screen, "Runtimes")
    for runtime in diagnosis.runtimes:
        detail = runtime.version or f"{runtime.detail}; to get it: {runtime.remedy}"
        _show_line(screen, YES if runtime.version else ABSENT, runtime.name, detail)
    _show_title(screen, "Devices")
    for device in diagnosis.devices:
        mark = YES if device.available else WITHOUT if device.enabled else ABSENT
        _show_line(screen, mark, device.name, _needs(device))
    _show_title(screen, "Service")
    daemon, trial = diagnosis.daemon, diagnosis.trial
    mark = WITHOUT if daemon.problems else YES if daemon.directory is not None else ABSENT
    _show_line(screen, mark, "running service", daemon.detail)
    for problem in daemon.problems:
        _show_line(screen, WITHOUT, "", problem)
    configuration = diagnosis.configuration
    wrong = f"{len(configuration.mistakes)} mistakes: model-loaderd would not start"
    said = f"in order: {configuration.file or 'no file'}, and the environment"
    mark = NO if configuration.mistakes else YES
    _show_line(screen, mark, "model-loaderd's configuration", wrong if mark is NO else said)
    for mistake in configuration.mistakes:
        _show_line(screen, NO, "", mistake)
    _show_line(screen, YES if trial.works else NO, "a model in a sandbox", trial.detail)
    advice = diagnosis.advice()
    if advice:
        _show_title(screen, "To get what is missing")
    for remedy, layers in advice.items():
        screen.print(styled(("  " + safe(", ".join(layers)), OFF)), soft_wrap=True)
        screen.print(f"    {safe(remedy, len(remedy))}", soft_wrap=True)
    screen.print()
    _show_verdict(screen, diagnosis)


def _needs(device: KnownDevice) -> str:
    """Say what a device needs before a model can have it."""
    if not device.available:
        return device.detail
    if device.always:
        return "every model can have it"
    granted = "; ".join(device.grants) or "nothing that other workers have not"
    if device.enabled:
        return f"enabled by the configuration: its workers have: {granted}"
    return f"if it is enabled (--device {device.name}), its workers have: {granted}"


def _show_title(screen: Console, title: str) -> None:
    screen.print()
    screen.print(styled((title, HEAD)))


def _show_line(screen: Console, mark: tuple[str, str], name: str, detail: str) -> None:
    line = styled("  ", mark, f"  {safe(name):<28}  ", (safe(detail), DIM))
    screen.print(line, soft_wrap=True)


def _show_verdict(screen: Console, diagnosis: Diagnosis) -> None:
    withheld = [layer.name for layer in diagnosis.layers if not layer.available]
    if not diagnosis.fit:
        verdict = styled(("Models cannot run here yet: see above.", BAD))
    elif withheld:
        verdict = styled(("Models run here, ", ON), f"without these layers: {', '.join(withheld)}.")
    else:
        verdict = styled(("Models run here, behind every layer.", ON))
    screen.print(verdict, soft_wrap=True)
