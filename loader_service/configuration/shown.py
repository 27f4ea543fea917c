"""The configuration that holds, written as a file that would give the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loader_service.broker.settings import Policy
from loader_service.configuration.configuration import Configuration
from loader_service.configuration.kinds import NONE
from loader_service.configuration.mistakes import Keys, dotted
from loader_service.configuration.schema import (
    LIMIT_KINDS,
    LIMITS,
    POLICY,
    POLICY_KINDS,
    SERVICE,
    SERVICE_NAMES,
    SHARED,
    TABLES,
    TCP,
)

FIELDS = {written: name for name, written in SERVICE_NAMES.items()}
POLICY_FIELDS = {"users": "uids", "groups": "gids"}


def tables_of(configuration: Configuration) -> dict[str, Any]:
    """Return every value of the configuration by tables and names, as JSON has them."""
    settings = configuration.settings
    return {
        SERVICE: {name: _plain(getattr(settings, FIELDS[name])) for name in TABLES[SERVICE]},
        LIMITS: {name: _plain(getattr(settings.limits, name)) for name in TABLES[LIMITS]},
        SHARED: {name: _plain(getattr(settings, name)) for name in TABLES[SHARED]},
        TCP: {name: _plain(getattr(settings.tcp, name)) for name in TABLES[TCP]},
        POLICY: [_policy(policy) for policy in settings.policies],
    }


def as_json(configuration: Configuration) -> str:
    """Write the values, and where each was given that is no default."""
    places = {dotted(keys): str(place) for keys, place in configuration.places.items()}
    file = None if configuration.file is None else str(configuration.file)
    return json.dumps({"file": file, **tables_of(configuration), "places": places}, indent=2)


def as_toml(configuration: Configuration) -> str:
    """Write the values as TOML, each with the place where it was given."""
    tables = tables_of(configuration)
    lines: list[str] = []
    for name in TABLES:
        lines += [f"[{name}]", *_lines((name,), tables[name], configuration), ""]
    for number, policy in enumerate(tables[POLICY]):
        keys: Keys = (POLICY, number)
        limits = policy.pop(LIMITS)
        lines += [f"[[{POLICY}]]", *_lines(keys, policy, configuration), ""]
        lines += [f"[{POLICY}.{LIMITS}]", *_lines((*keys, LIMITS), limits, configuration), ""]
    return "\n".join(lines).rstrip("\n")


def _lines(keys: Keys, table: Mapping[str, Any], configuration: Configuration) -> list[str]:
    written = []
    for name, value in table.items():
        if value is None and name not in POLICY_KINDS:
            value = NONE
        if value is not None:
            setting = f"{name} = {json.dumps(value, ensure_ascii=False)}"
            written.append(f"{setting:<45} # {configuration.place(*keys, name)}")
    return written


def _policy(policy: Policy) -> dict[str, Any]:
    named = {name: _plain(getattr(policy, POLICY_FIELDS.get(name, name))) for name in POLICY_KINDS}
    limits = asdict(policy.limits)
    return named | {LIMITS: {name: limits[name] for name in LIMIT_KINDS}}


def _plain(value: object) -> Any:
    """Return a value as JSON and TOML have it; sets become lists."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, frozenset):
        return sorted(item.hex() if isinstance(item, bytes) else item for item in value)
    return value
