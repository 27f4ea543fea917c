"""What ``model-loaderd`` does: it runs a broker in the foreground, for a user or for a machine."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loader_service.broker import log
from loader_service.broker.daemon_flags import default_directory, parser, settings_given
from loader_service.broker.directory import Directory, DirectoryTaken
from loader_service.broker.refusal import Refusal
from loader_service.broker.running import run
from loader_service.broker.service_manager import ServiceManager
from loader_service.broker.settings import Settings
from loader_service.configuration.configuration import Configuration, configure, default_file
from loader_service.configuration.mistakes import ConfigurationError
from loader_service.configuration.shown import as_json, as_toml
from loader_service.sandbox.descriptors import open_standard
from model_loader_wire.system_service import runs_for_the_machine

log_of_broker = logging.getLogger("model_loader.broker")

DOCTOR = "`model-loader doctor`"

EXIT_USAGE = 2
EXIT_TAKEN = 3
EXIT_REFUSED = 4


def run_daemon(arguments: list[str] | None = None) -> int:
    """Run the daemon as its command line says; returns the exit status."""
    given = vars(parser().parse_args(arguments))
    open_standard()
    try:
        configuration = _configured(given)
    except ConfigurationError as error:
        _tell_mistakes(error, as_json=given.get("json", False))
        return EXIT_USAGE
    if given.get("check_config"):
        print(as_json(configuration) if given.get("json") else as_toml(configuration))
        return 0
    settings = configuration.settings
    log.configure(
        settings.log_level.upper(),
        settings.log_bytes_per_minute,
        "%(asctime)s %(levelname)s %(name)s: %(message)s",
        settings.log_format,
    )
    warn_of_distrust(settings)
    try:
        directory = Directory(Path(settings.directory), shared=True)
    except (DirectoryTaken, OSError) as error:
        print(f"model-loaderd: {error}; choose another --directory", file=sys.stderr)
        return EXIT_TAKEN
    try:
        manager = ServiceManager.of_environment(os.environ)
        run(settings, directory, read=lambda: _configured(given).settings, manager=manager)
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
    if not runs_for_the_machine() and settings.users != {os.geteuid()}:
        log_of_broker.warning(
            "other users are named, but their clients trust the machine's service or their own only"
        )


def _configured(given: Mapping[str, Any]) -> Configuration:
    """Read the configuration that the command line asks for; raises ConfigurationError."""
    file = Path(given["config"]) if "config" in given else default_file()
    return configure(default_directory(), file, os.environ, settings_given(given))


def _tell_mistakes(error: ConfigurationError, *, as_json: bool) -> None:
    """Say what is wrong, each in a line on stderr, or as one JSON object on stdout."""
    if as_json:
        mistakes = [
            {
                "source": mistake.place.source,
                "line": mistake.place.line,
                "setting": mistake.place.name,
                "reason": mistake.reason,
            }
            for mistake in error.mistakes
        ]
        print(json.dumps({"mistakes": mistakes}, indent=2))
        return
    for mistake in error.mistakes:
        print(f"model-loaderd: {mistake}", file=sys.stderr)
