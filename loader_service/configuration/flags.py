"""Settings from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loader_service.configuration.mistakes import FLAG, Keys, Place
from loader_service.configuration.schema import TABLES
from loader_service.configuration.values import Values


def read_flags(flags: Mapping[Keys, tuple[str, Any]]) -> Values:
    """Take what was given on the command line, by setting: the flag, and its text or texts."""
    values = Values()
    for keys, (flag, value) in flags.items():
        table, name = keys
        kind = TABLES[str(table)][str(name)]
        values.read(keys, kind, value, Place(FLAG, name=flag), text=isinstance(value, str))
    return values
