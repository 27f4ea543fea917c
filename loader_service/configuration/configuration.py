"""The configuration: every source put together, checked as a whole, and made into settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loader_service.broker.settings import Settings
from loader_service.configuration.building import build, check_each
from loader_service.configuration.environment import read_environment
from loader_service.configuration.file import read_file
from loader_service.configuration.flags import read_flags
from loader_service.configuration.mistakes import DEFAULT, ConfigurationError, Keys, Place
from loader_service.configuration.values import in_order, merged
from model_loader_wire.system_service import runs_for_the_machine

SYSTEM_FILE = Path("/etc/model-loader/config.toml")
"""What the machine's service reads if it is there and no other file is named."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What holds, and where each value comes from."""

    settings: Settings
    file: Path | None
    places: Mapping[Keys, Place]
    """Of every value that is no default."""

    def place(self, *keys: str | int) -> Place:
        """Return where a setting's value was given."""
        return self.places.get(keys, DEFAULT)


def default_file() -> Path | None:
    """Return the file that is read without being named, or None."""
    return SYSTEM_FILE if runs_for_the_machine() and SYSTEM_FILE.exists() else None


def configure(
    directory: str,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[Keys, tuple[str, Any]] | None = None,
) -> Configuration:
    """Read every source; `flags`, the names and values of those that were given, override the
    environment, and that the file.

    `directory` is where the sockets live unless a source says otherwise. Raises ConfigurationError
    with all mistakes of all sources.
    """
    sources = [read_environment(environment or {}), read_flags(flags or {})]
    if file is not None:
        sources.insert(0, read_file(file))
    for source in sources:
        check_each(source)
    values = merged(sources)
    settings = build(values, directory)
    if values.mistakes:
        raise ConfigurationError(in_order(values.mistakes))
    places = {keys: given.place for keys, given in values.given.items()}
    return Configuration(settings, file, places)
