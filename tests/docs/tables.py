"""The tables of the documentation that are made from the code.

    python -m tests.docs.tables

writes them anew between their markers; a test fails while they differ from the code.
"""

from __future__ import annotations

import ast
import errno
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.markdown import documents, name_of

if TYPE_CHECKING:
    import click

    from loader_service.sandbox.policy import Rule

MARKED = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)

ARGUMENTS = {
    "model": "the model file",
    "model_id": "a model's id, or the beginning of one, as `ps` shows it",
    "shell": "`bash`, `zsh` or `fish`",
    "values": "NAME=VALUE, one for each limit; `none` is no limit",
}
"""Of the commands."""

Rows = Iterable[Sequence[str]]


def table(heads: Sequence[str], rows: Rows) -> str:
    """Lay out a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: str) -> str:
    """Mark text as code."""
    return f"`{text}`"


def causes() -> str:
    """From cause to error to gRPC code."""
    from model_loader_wire.causes import TABLE

    return table(
        ["cause", "error", "gRPC code", "when"],
        (
            [code(cause.value), code(outcome.error), code(outcome.grpc_code), outcome.meaning]
            for cause, outcome in TABLE.items()
        ),
    )


def data_types() -> str:
    """The data types and what they are in NumPy."""
    from model_loader._tensor import DTYPES
    from model_loader_wire.data_types import DataType

    special = {
        DataType.UNKNOWN: ("`uint8`: the tensor's raw bytes, in one dimension", "–"),
        DataType.STRING: ("`object`: elements are `bytes` (an extension)", "–"),
    }
    return table(
        ["data type", "NumPy", "bytes an element"],
        (
            [
                code(kind.api_name),
                *special.get(kind, (code(DTYPES[kind].name), str(kind.element_size))),
            ]
            for kind in DataType
        ),
    )


def _field_meanings(path: Path, name: str) -> dict[str, str]:
    """Read the texts that follow the fields of a class."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    found = {}
    for field, text in zip(kind.body, kind.body[1:], strict=False):
        targets = field.targets if isinstance(field, ast.Assign) else []
        if isinstance(field, ast.AnnAssign):
            targets = [field.target]
        for target in targets:
            if (
                isinstance(target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[target.id] = " ".join(str(text.value.value).split())
    return found


def limits() -> str:
    """The limits, their defaults and what they hold."""
    from model_loader_wire import limits as module

    meanings = _field_meanings(Path(module.__file__), "Limits")
    rows = []
    for field in fields(module.Limits):
        default = getattr(module.DEFAULT_LIMITS, field.name)
        shown = "none" if default is None else f"{default:,}"
        rows.append([code(field.name), shown, meanings[field.name]])
    return table(["limit", "default", "what it holds"], rows)


def shared_limits() -> str:
    """The limits that models share, their defaults and what they hold."""
    from model_loader_wire import shared_limits as module

    meanings = _field_meanings(Path(module.__file__), "SharedLimits")
    rows = []
    for name, default in module.SHARED_LIMITS.items():
        rows.append([code(name), "none" if default is None else f"{default:,}", meanings[name]])
    return table(["limit", "default", "what it holds"], rows)


def limit_levels() -> str:
    """Which limits there are of each quantity at each level."""
    heads = ["of", "one worker or call", "an origin", "a principal", "all"]
    return table(
        heads,
        (
            [what, *(", ".join(map(code, cell.split())) or "–" for cell in cells)]
            for what, *cells in LIMIT_LEVELS
        ),
    )


LIMIT_LEVELS = (
    (
        "memory",
        "memory_bytes",
        "origin_memory_bytes",
        "principal_memory_bytes",
        "total_memory_bytes",
    ),
    (
        "CPU share",
        "cpu_percent",
        "origin_cpu_percent",
        "principal_cpu_percent",
        "total_cpu_percent",
    ),
    ("CPU time", "cpu_seconds", "", "", ""),
    ("time", "load_seconds compute_seconds", "", "", ""),
    ("threads", "threads", "", "", ""),
    ("models", "", "models_per_origin", "processes", "total_processes"),
    (
        "loads",
        "",
        "loads_per_minute",
        "principal_loads_per_minute",
        "total_loads_per_minute",
    ),
    (
        "model bytes",
        "model_bytes",
        "origin_upload_bytes",
        "upload_bytes",
        "total_upload_bytes",
    ),
    ("relayed calls", "", "origin_calls_in_flight", "calls_in_flight", "total_calls_in_flight"),
    (
        "tensor bytes",
        "tensor_bytes output_bytes",
        "origin_bytes_in_flight",
        "bytes_in_flight",
        "total_bytes_in_flight",
    ),
    ("attach connections", "", "", "attach_connections", "total_attach_connections"),
    ("gRPC connections and calls", "", "", "grpc_connections calls_at_a_time", ""),
    ("descriptors of the service", "", "", "principal_descriptors", "total_descriptors"),
    ("memory of the broker", "", "", "", "broker_memory_bytes"),
    ("log bytes", "", "", "", "log_bytes_per_minute"),
)
"""Every limit, once: what of, and its names by level."""


def daemon_flags() -> str:
    """The flags of model-loaderd that are no limits."""
    from loader_service.broker.daemon_flags import parser

    rows = []
    for action in parser()._actions:
        flag = ", ".join(code(text) for text in action.option_strings)
        if action.dest in _limit_names():
            continue
        values = action.metavar or ", ".join(map(str, action.choices or ()))
        if action.dest == "directory":
            # The default is the caller's own: the text tells both.
            meaning = "where the sockets live"
        else:
            meaning = (action.help or "") % {"default": action.default, "prog": "model-loaderd"}
        rows.append([flag, str(values), meaning])
    return table(["flag", "values", "meaning"], rows)


def _limit_names() -> set[str]:
    from model_loader_wire.limits import Limits
    from model_loader_wire.shared_limits import SHARED_LIMITS

    return {*SHARED_LIMITS, *(field.name for field in fields(Limits))}


def layers() -> str:
    """The sandbox's layers."""
    from loader_service.sandbox.layers import CGROUP_LAYERS, DESCRIPTIONS, MINIMUM

    def kind(layer: object) -> str:
        if layer in MINIMUM:
            return "always: no worker starts without it"
        return "by the broker, from outside" if layer in CGROUP_LAYERS else ""

    return table(
        ["layer", "what it does", "on"],
        (
            [code(layer.value), text, kind(layer) or "where the host gives it"]
            for layer, text in DESCRIPTIONS.items()
        ),
    )


def _action(action: object) -> str:
    from loader_service.sandbox import policy

    if isinstance(action, policy.Fail):
        return f"fails ({errno.errorcode[action.error]})"
    return "allowed" if isinstance(action, policy.Allow) else "kills"


def _system_call(rule: Rule) -> list[str]:
    outcome = _action(rule.otherwise)
    if rule.cases:
        named = dict.fromkeys(_action(case.action) for case in rule.cases)
        outcome = f"{' or '.join(named)} by its arguments, else {outcome}"
    return [code(rule.name), outcome, rule.reason]


def system_calls() -> str:
    """What a worker may ask of the kernel."""
    from loader_service.sandbox import policy

    rows = [_system_call(rule) for rule in policy.WORKER_SYSTEM_CALLS]
    rows.append(["every other", _action(policy.UNLISTED), "no rule is a no"])
    return table(["system call", "what happens", "why"], rows)


def granted_calls() -> str:
    """What workers with a device may be granted to ask beside that."""
    from loader_service.sandbox.granted_calls import GRANTED_SYSTEM_CALLS

    rows = [
        [code(name), *_system_call(rule)]
        for name, rules in GRANTED_SYSTEM_CALLS.items()
        for rule in rules
    ]
    return table(["grant", "system call", "what happens then", "why"], rows)


def attempts() -> str:
    """What hostile code in a worker tries, and which layer stops it."""
    from tests.hostile.attempts import ATTEMPTS, Outcome

    def said(outcome: Outcome) -> str:
        return outcome if isinstance(outcome, str) else errno.errorcode[-outcome]

    rows: dict[str, list[str]] = {}
    for attempt in ATTEMPTS:
        name = re.sub(r"of family \d+", "of any family", attempt.name)
        others = [f"{code(layer.value)} {said(end)}" for layer, end in attempt.others.items()]
        rows[name] = [
            name,
            said(attempt.seccomp),
            (", ".join(others) or "not claimed") + (" (as root)" if attempt.root_only else ""),
            "yes" if attempt.bare else "",
        ]
    heads = ["attempt", "`seccomp`, and all layers", "other layers, each alone", "seen to succeed"]
    return table(heads, rows.values())


def exit_statuses() -> str:
    """The statuses of `model-loader`."""
    from model_loader_cli import exits

    meanings = _field_meanings(Path(exits.__file__), "Exit")
    return table(
        ["status", "meaning"],
        ([str(int(status)), meanings.get(status.name, "done")] for status in exits.Exit),
    )


def events() -> str:
    """The kinds of events, and what each tells."""
    from loader_service.broker.events import KINDS

    flat = {"owner": ("user", "origin"), "failure": ("cause", "limit", "value", "maximum")}
    rows = []
    for kind in KINDS:
        names = [name for field in fields(kind) for name in flat.get(field.name, (field.name,))]
        level = logging.getLevelName(kind.level).lower()
        meaning = " ".join((kind.__doc__ or "").split())
        rows.append([code(kind.kind), level, meaning, ", ".join(names) or "–"])
    return table(["event", "level", "when", "facts"], rows)


def metrics() -> str:
    """The metrics, as Prometheus sees them."""
    from tests.support.all_metrics import described

    return table(
        ["metric", "type", "labels", "what it tells"],
        (
            [code(name), kind, ", ".join(labels) or "–", text]
            for name, kind, labels, text in described()
        ),
    )


def options_of(name: str) -> str:
    """The arguments and options of a command of `model-loader`."""
    import click

    from model_loader_cli.command_line import cli

    rows = []
    command: click.Command = cli
    for word in name.split("-"):
        assert isinstance(command, click.Group)
        command = command.commands[word]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            name = parameter.name or ""
            rows.append([code(name.upper()), ARGUMENTS[name]])
        elif isinstance(parameter, click.Option):
            flags = ", ".join(map(code, parameter.opts))
            value = "" if parameter.is_flag else f" {_values_of(parameter)}"
            rows.append([flags + value, parameter.help or ""])
    return table(["option", "meaning"], rows)


def _values_of(option: click.Option) -> str:
    import click

    if isinstance(option.type, click.Choice):
        default = f" ({option.default})" if isinstance(option.default, str) else ""
        return ", ".join(code(str(choice)) for choice in option.type.choices) + default
    return option.metavar or option.type.name.split()[0].upper()


TABLES: dict[str, Callable[[], str]] = {
    "causes": causes,
    "data-types": data_types,
    "limits": limits,
    "shared-limits": shared_limits,
    "limit-levels": limit_levels,
    "daemon-flags": daemon_flags,
    "layers": layers,
    "system-calls": system_calls,
    "granted-calls": granted_calls,
    "attempts": attempts,
    "exit-statuses": exit_statuses,
    "events": events,
    "metrics": metrics,
    **{
        f"options-{name}": partial(options_of, name)
        for name in (
            *("demo", "run", "inspect", "doctor", "bench", "completion"),
            *("status", "ps", "top", "events", "kill", "drain", "limits-show", "limits-set"),
        )
    },
}


def renewed(text: str) -> str:
    """Return a document with its tables made anew; raises KeyError for one nobody makes."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def main() -> int:
    """Write every table anew; says which documents changed."""
    for document in documents():
        text = document.read_text(encoding="utf-8")
        new = renewed(text)
        if new != text:
            document.write_text(new, encoding="utf-8")
            print(f"{name_of(document)}: tables renewed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
