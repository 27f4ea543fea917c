"""The flags of ``model-loaderd``: one for each limit, and for what is often set by hand."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from loader_service.broker.settings import (
    ISOLATIONS,
    LOG_FORMATS,
    LOG_LEVELS,
    OPERATOR_PROFILES,
    RUNTIMES,
    Settings,
)
from loader_service.configuration.configuration import SYSTEM_FILE
from loader_service.configuration.mistakes import Keys
from loader_service.configuration.schema import LIMITS, SERVICE, SHARED
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SHARED_LIMITS
from model_loader_wire.system_service import runs_for_the_machine

SYSTEM_DIRECTORY = "/run/model-loader"

DEFAULTS = Settings(directory="")
WORDS = {
    "runtime": (RUNTIMES, "the interpreter; auto takes litert if it is installed"),
    "operators": (
        OPERATOR_PROFILES,
        "which operators a model may use: standard is all that the runtimes carry, hardened the "
        "ones that LiteRT hardens for models from the web",
    ),
    "isolation": (
        ISOLATIONS,
        "what has a process of its own: each model, or each origin with all its models, for "
        "machines with little memory",
    ),
    "log_level": (LOG_LEVELS, "what is logged to stderr"),
    "log_format": (LOG_FORMATS, "how it is logged: lines for people, or objects for programs"),
}
"""Settings with flags of their own that are words."""
USERS = {
    "users": (
        "--allow-user",
        "a user, by name or uid, who may attach beside the one who runs this; repeatable",
    ),
    "embedders": (
        "--embedder",
        "a user, by name or uid, who may attach and speaks for others, as a browser does: models "
        "of origins that are not its own programs get hardened operators; repeatable",
    ),
}
"""Settings that are lists of users."""
NAMES = {
    "devices": (
        "--device",
        "NAME",
        "a device that models may use beside the CPU's kernels, and what it needs of the sandbox: "
        "openvino, or external:NAME=LIBRARY[,/dev/NODE]...[,KEY=VALUE]... for a shared library "
        "with TensorFlow Lite's external delegate; the first is preferred; repeatable",
    ),
}
"""Settings that are lists of names."""
NUMBERS = {
    "crash_loop_deaths": "a model whose workers died so often by its own doing is refused for a "
    "while to its origin",
    "crash_loop_seconds": "how long such a death counts",
    "crash_loop_refusal_seconds": "how long the refusal lasts after the last death",
    "spare_seconds": "how long a process waits, after a load, for the next load of its origin; 0: "
    "none does",
    "kept_model_bytes": "bytes of loaded models of one user that are kept, so that the same origin "
    "need not send them again; 0 keeps none",
    "keep_alive_seconds": "a model that was not called for so long is parked: its process ends, "
    "and the next call brings it back; 0: none is",
    "memory_pressure_bytes": "with less memory left for workers than that, the models that were "
    "called longest ago are parked; 0: none is",
    "parked_model_bytes": "bytes of models of one user that are held so that they can be parked; a "
    "model for which there is no room is never parked",
    "compiled_cache_bytes": "bytes of partitions that devices have compiled and that are kept for "
    "later loads of the same model with the same cache_token; 0 keeps none",
    "stderr_bytes_per_second": "how much of one worker's standard error is read; one that writes "
    "more waits",
    "claim_seconds": "a model whose channel nobody asked for by then is closed",
    "handshake_seconds": "how long a connection may be open before it has said who it is",
    "message_seconds": "how long a call's one message may take to come",
    "drain_seconds": "how long computations may go on after SIGTERM or SIGINT, before all ends; 0: "
    "not at all",
    "metrics_port": "a loopback port where metrics are served, too, for every program of this "
    "machine; they do not tell origins there",
}
"""Settings with flags of their own that are numbers."""
SWITCHES = {
    "admin": "whether root and the service's own user can see and steer the service by a socket "
    "for them alone",
    "metrics": "whether metrics for Prometheus are served on a socket in the directory",
}
"""Settings with flags of their own that are yes or no."""
GROUP = "metrics_group"


def default_directory() -> str:
    """Where clients look for a daemon: in the user's runtime directory, the machine's in /run."""
    if runs_for_the_machine():
        return SYSTEM_DIRECTORY
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return str(Path(runtime) / "model-loader")


def parser() -> argparse.ArgumentParser:
    """Describe the command line. What is not given is not in what it parses."""
    result = argparse.ArgumentParser(
        prog="model-loaderd",
        # Of some fifty flags: a mistake in one must not be hidden below the others.
        usage="%(prog)s [-h] [FLAG ...]",
        argument_default=argparse.SUPPRESS,
        description="Run the Model Loader service in the foreground: programs hand it models, and "
        "each model runs in a sandboxed process of its own. SIGINT or SIGTERM ends it and every "
        "worker, once they have computed what is under way; a second one, at once. SIGHUP has it "
        "read its configuration again. A flag overrides the environment, and that the "
        "configuration's file.",
        epilog="Exit status: 0 ended as asked; 2 wrong usage, or a mistake in the configuration; 3 "
        "another service runs in the directory, or it cannot be used; 4 this host does not allow "
        "the sandbox's minimum or cannot enforce a limit that was set, or no runtime is installed "
        "(see `model-loader doctor`).",
    )
    result.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration, in TOML (default: the machine's service reads "
        f"{SYSTEM_FILE} if it is there)",
    )
    result.add_argument(
        "--check-config",
        action="store_true",
        help="only tell every mistake in the configuration, else what holds and where each value "
        "was given",
    )
    result.add_argument(
        "--json", action="store_true", help="with --check-config: tell it as one JSON object"
    )
    result.add_argument(
        "--directory", help=f"where the sockets live (default: {default_directory()})"
    )
    for name, (words, text) in WORDS.items():
        default = getattr(DEFAULTS, name)
        result.add_argument(
            _flag(name), choices=words, help=f"{text} (default: {default})", dest=name
        )
    for name, (flag, text) in USERS.items():
        result.add_argument(flag, action="append", metavar="USER", help=text, dest=name)
    for name, (flag, what, text) in NAMES.items():
        result.add_argument(flag, action="append", metavar=what, help=text, dest=name)
    for name, text in NUMBERS.items():
        default = _said(getattr(DEFAULTS, name), "none")
        result.add_argument(_flag(name), metavar="N", help=f"{text} (default: {default})")
    for name, text in SWITCHES.items():
        default = "yes" if getattr(DEFAULTS, name) else "no"
        result.add_argument(
            _flag(name),
            action=argparse.BooleanOptionalAction,
            help=f"{text} (default: {default})",
        )
    result.add_argument(
        _flag(GROUP),
        metavar="GROUP",
        help="the group that may read the metrics, by name or gid (default: the service's own)",
    )
    shared = result.add_argument_group(
        "limits that models share",
        "of an origin, of a principal (a user), and in all; what the machine has bounds memory and "
        "descriptors that have no limit here",
    )
    for name, default in SHARED_LIMITS.items():
        shared.add_argument(_flag(name), metavar="N", help=f"(default: {_said(default)})")
    limits = result.add_argument_group("limits", "upper bounds; a caller can lower them for a load")
    for field in fields(Limits):
        default = getattr(DEFAULT_LIMITS, field.name)
        limits.add_argument(_flag(field.name), metavar="N", help=f"(default: {_said(default)})")
    return result


def settings_given(given: Mapping[str, Any]) -> dict[Keys, tuple[str, Any]]:
    """Return the settings among what was parsed: by setting the flag, and its text or texts."""
    flags: dict[Keys, tuple[str, Any]] = {}
    for name, value in given.items():
        listed = USERS.get(name) or NAMES.get(name)
        flag = listed[0] if listed else _flag(name)
        if name in SHARED_LIMITS:
            flags[SHARED, name] = flag, value
        elif hasattr(DEFAULT_LIMITS, name):
            flags[LIMITS, name] = flag, value
        elif name == "directory" or name in {*WORDS, *USERS, *NAMES, *NUMBERS, *SWITCHES, GROUP}:
            flags[SERVICE, name] = flag, value
    return flags


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _said(default: object, none: str = "no limit") -> str:
    return none if default is None else str(default)
