"""Options for devices, and how a report on them is shown."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console

import model_loader as ml
from model_loader_wire.device_options import EXECUTION_PREFERENCES

from .terminal import DIM, HEAD, add_row, in_seconds, safe, styled, table

CPU = ("reference", "xnnpack")
"""Devices that need not be enabled."""
INSTALLED = "openvino"
"""The device that a private service can have for being installed."""

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--device",
        metavar="NAME",
        help="Run it on this device: reference, xnnpack, openvino, external:NAME, or "
        "external:NAME=LIBRARY for a private service. No other stands in for it.",
    ),
    click.option(
        "--execution-preference",
        type=click.Choice(EXECUTION_PREFERENCES),
        help="Choose among the devices of the service by this.",
    ),
    click.option(
        "--allow-fp16", is_flag=True, default=None, help="Allow a device reduced precision."
    ),
    click.option(
        "--max-partitions",
        "max_number_delegated_partitions",
        type=int,
        metavar="N",
        help="Give devices the N largest partitions (default: 3; 0: all).",
    ),
    click.option(
        "--min-nodes",
        "min_nodes_per_partition",
        type=click.IntRange(min=0),
        metavar="N",
        help="Leave partitions of fewer operators to the CPU.",
    ),
)


def device_options(command: _Command) -> _Command:
    """Add the options for devices to a command, which gets them as keywords."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def context_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what was given on the command line into options of a context."""
    options = {name: value for name, value in values.items() if value is not None}
    device = options.pop("device", None)
    if device is not None:
        options["accelerator_name"] = device.partition("=")[0]
    return options


def private_devices(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a private service must enable for these options; none: any service will do."""
    device: str | None = values.get("device")
    if device is not None:
        # What reports name is one of its devices: "openvino:CPU".
        enabled = INSTALLED if device.startswith(f"{INSTALLED}:") else device
        return () if device in CPU or not device else (enabled,)
    asked = any(value is not None for value in values.values())
    there = importlib.util.find_spec(INSTALLED) is not None
    return (INSTALLED,) if asked and there else ()


def to_json(delegation: ml.Delegation | None) -> dict[str, Any] | None:
    """The report as a JSON-able object, with each partition's share of the operators."""
    if delegation is None:
        return None
    values: dict[str, Any] = delegation.to_values()
    for shown, partition in zip(values["partitions"], delegation.partitions, strict=True):
        shown["share"] = delegation.share(partition)
    return values


def show_delegation(screen: Console, delegation: ml.Delegation) -> None:
    """Print the report for people."""
    screen.print()
    screen.print(styled(("Devices", HEAD)))
    if delegation.coarse:
        names = ", ".join(partition.device for partition in delegation.partitions)
        screen.print(f"  {safe(names)}", soft_wrap=True)
        return
    rows = table("device", "share", "operators", "compiled in", "run in", right=("share",))
    for partition in delegation.partitions:
        cached = f" (cache {partition.cache})" if partition.cache else ""
        took = partition.compile_seconds
        mean = partition.run_seconds
        add_row(
            rows,
            partition.device,
            f"{delegation.share(partition):.0%}",
            _counted(partition.operators),
            f"{in_seconds(took)}{cached}" if took else "",
            "" if mean is None else in_seconds(mean),
        )
    screen.print(rows)
    for reason in delegation.reasons:
        count = f"{reason.count} {reason.operator}"
        line = f"  {safe(count)} not on {safe(reason.device)}: {safe(reason.reason)}"
        screen.print(styled((line, DIM)), soft_wrap=True)
    _show_steps(screen, delegation.steps)


def _show_steps(screen: Console, steps: Sequence[str]) -> None:
    for step in steps:
        screen.print(styled((f"  {safe(step)}", DIM)), soft_wrap=True)


def _counted(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())
