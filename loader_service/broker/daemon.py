"""``model-loaderd``: the broker in the foreground, for every program of this user or machine."""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import sys
from dataclasses import fields
from pathlib import Path

from loader_service.broker import log
from loader_service.broker.directory import Directory, DirectoryTaken
from loader_service.broker.refusal import Refusal
from loader_service.broker.running import run
from loader_service.broker.settings import ISOLATIONS, OPERATOR_PROFILES, Settings, complete
from loader_service.sandbox.descriptors import open_standard
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SHARED_LIMITS

log_of_broker = logging.getLogger("model_loader.broker")

SYSTEM_DIRECTORY = "/run/model-loader"

DOCTOR = "`model-loader doctor`"

DEFAULTS = Settings(directory="")
FLAGS = {
    "crash_loop_deaths": "a model whose workers died so often by its own doing is refused for a "
    "while to its origin",
    "crash_loop_seconds": "how long such a death counts",
    "crash_loop_refusal_seconds": "how long the refusal lasts after the last death",
    "spare_seconds": "how long a process waits, after a load, for the next load of its origin; 0: "
    "none does",
    "kept_model_bytes": "bytes of loaded models of one user that are kept, so that the same origin "
    "need not send them again; 0 keeps none",
    "stderr_bytes_per_second": "how much of one worker's standard error is read; one that writes "
    "more waits",
    "claim_seconds": "a model whose channel nobody asked for by then is closed",
    "handshake_seconds": "how long a connection may be open before it has said who it is",
    "message_seconds": "how long a call's one message may take to come",
}
"""Settings with flags of their own that are numbers."""

EXIT_USAGE = 2
EXIT_TAKEN = 3
EXIT_REFUSED = 4


def default_directory() -> str:
    """Where clients look for a daemon: the user's runtime directory, or root's /run."""
    if os.geteuid() == 0:
        return SYSTEM_DIRECTORY
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return str(Path(runtime) / "model-loader")


def parser() -> argparse.ArgumentParser:
    """Describe the command line; one flag for each limit."""
    result = argparse.ArgumentParser(
        prog="model-loaderd",
        # Of some forty flags: a mistake in one must not be hidden below the others.
        usage="%(prog)s [-h] [FLAG ...]",
        description="Run the Model Loader service in the foreground: programs hand it models, and "
        "each model runs in a sandboxed process of its own. SIGINT or SIGTERM ends it and every "
        "worker.",
        epilog="Exit status: 0 ended as asked; 2 wrong usage; 3 another service runs in the "
        "directory, or it cannot be used; 4 this host does not allow the sandbox's minimum or "
        "cannot enforce a limit that was set, or no runtime is installed (see `model-loader "
        "doctor`).",
    )
    result.add_argument(
        "--directory",
        default=default_directory(),
        help="where the sockets live (default: %(default)s)",
    )
    result.add_argument(
        "--runtime",
        choices=("auto", "litert", "tflite-runtime"),
        default="auto",
        help="the interpreter; auto takes litert if it is installed (default: %(default)s)",
    )
    result.add_argument(
        "--operators",
        choices=OPERATOR_PROFILES,
        default="standard",
        help="which operators a model may use: standard is all that the runtimes carry, hardened "
        "the ones that LiteRT hardens for models from the web (default: %(default)s)",
    )
    result.add_argument(
        "--isolation",
        choices=ISOLATIONS,
        default="model",
        help="what has a process of its own: each model, or each origin with all its models, for "
        "machines with little memory (default: %(default)s)",
    )
    result.add_argument(
        "--allow-user",
        action="append",
        default=[],
        metavar="USER",
        help="a user, by name or uid, who may attach beside the one who runs this; repeatable",
    )
    result.add_argument(
        "--embedder",
        action="append",
        default=[],
        metavar="USER",
        help="a user, by name or uid, who may attach and speaks for others, as a browser does: "
        "models of origins that are not its own programs get hardened operators; repeatable",
    )
    result.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="what is logged to stderr (default: %(default)s)",
    )
    for name, text in FLAGS.items():
        default = getattr(DEFAULTS, name)
        result.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            metavar="N",
            default=default,
            help=f"{text} (default: %(default)s)",
        )
    shared = result.add_argument_group(
        "limits that models share", "of an origin, of a principal (a user), and in all"
    )
    for name, number in SHARED_LIMITS.items():
        shared.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            metavar="N",
            default=number,
            help=f"(default: {'no limit' if number is None else number})",
        )
    limits = result.add_argument_group("limits", "upper bounds; a caller can lower them for a load")
    for field in fields(Limits):
        default = getattr(DEFAULT_LIMITS, field.name)
        kind = float if field.name in ("load_seconds", "compute_seconds") else int
        limits.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            metavar="N",
            help=f"(default: {'no limit' if default is None else default})",
        )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; returns the exit status."""
    given = parser().parse_args(arguments)
    open_standard()
    try:
        asked = {field.name: getattr(given, field.name) for field in fields(Limits)}
        settings = Settings(
            directory=given.directory,
            limits=complete(Limits.from_values({k: v for k, v in asked.items() if v is not None})),
            runtime=given.runtime,
            operators=given.operators,
            isolation=given.isolation,
            allowed_uids=frozenset(_uid(user) for user in given.allow_user),
            embedder_uids=frozenset(_uid(user) for user in given.embedder),
            **{name: getattr(given, name) for name in (*FLAGS, *SHARED_LIMITS)},
        )
    except (TypeError, ValueError) as error:
        print(f"model-loaderd: {error}", file=sys.stderr)
        return EXIT_USAGE
    log.configure(
        given.log_level.upper(),
        settings.log_bytes_per_minute,
        "%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    warn_of_distrust(settings)
    try:
        directory = Directory(Path(settings.directory), shared=True)
    except (DirectoryTaken, OSError) as error:
        print(f"model-loaderd: {error}; choose another --directory", file=sys.stderr)
        return EXIT_TAKEN
    try:
        run(settings, directory)
    except Refusal as refusal:
        words = f"\n{refusal.failure.last_words}" if refusal.failure.last_words else ""
        hint = "" if DOCTOR in str(refusal) else f"; see {DOCTOR}"
        print(f"model-loaderd: {refusal}{hint}{words}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"model-loaderd: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def warn_of_distrust(settings: Settings) -> None:
    """Say in the log where users are named whose clients will not trust this service."""
    if os.geteuid() != 0 and settings.users != {os.geteuid()}:
        log_of_broker.warning(
            "other users are named, but their clients trust a service of root or their own only"
        )


def _uid(user: str) -> int:
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user!r}") from None


if __name__ == "__main__":
    sys.exit(main())
