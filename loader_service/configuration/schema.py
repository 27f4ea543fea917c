"""The tables of a configuration, the settings in each, and of what kind each is.

They are read from the dataclasses that they fill: a setting that is added there can be configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import get_type_hints

from loader_service.broker.settings import (
    ISOLATIONS,
    LOG_FORMATS,
    LOG_LEVELS,
    OPERATOR_PROFILES,
    RUNTIMES,
    Policy,
    Settings,
)
from loader_service.broker.tcp_settings import Tcp
from loader_service.configuration.kinds import (
    CERTIFICATES,
    DIGESTS,
    GROUPS,
    TOKENS,
    USERS,
    Choice,
    Devices,
    Flag,
    Group,
    Kind,
    Number,
    Size,
    Text,
    Whole,
)
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from model_loader_wire.shared_limits import SHARED_LIMITS, SharedLimits

SERVICE, LIMITS, SHARED, POLICY = "service", "limits", "shared_limits", "policy"
TCP = "tcp"

CHOICES = {
    "runtime": RUNTIMES,
    "operators": OPERATOR_PROFILES,
    "isolation": ISOLATIONS,
    "log_level": LOG_LEVELS,
    "log_format": LOG_FORMATS,
}
"""Settings that are one of some words."""
WRITTEN_AS = {
    "allowed_uids": "users",
    "embedder_uids": "embedders",
    "metrics_gid": "metrics_group",
}
"""Settings whose names tell what becomes of what is written."""
NESTED = frozenset({"limits", "policies", "tcp", "credentials"})
"""Fields of the settings that have tables, or files, of their own."""
OF_POLICIES = frozenset({"name", "uids", "gids", "members", "certificates", "tokens", "limits"})
"""Fields of a policy that are written otherwise."""

PLAIN: Mapping[object, Kind] = {
    int: Whole(),
    int | None: Whole(optional=True),
    float: Number(),
    float | None: Number(),
    bool: Flag(),
    str: Text(),
    str | None: Text(optional=True),
    frozenset[int]: USERS,
    frozenset[bytes] | None: DIGESTS,
    tuple[str, ...]: Devices(),
}


def kind_of(name: str, hint: object) -> Kind | None:
    """Return the kind of a field by its name and type; None for one that cannot be written."""
    if name == "metrics_gid":
        return Group()
    if name in CHOICES:
        return Choice(CHOICES[name])
    if name.endswith(("_bytes", "_bytes_per_second", "_bytes_per_minute")):
        return Size(optional=hint == (int | None))
    return PLAIN.get(hint)


def kinds_of(holder: type, names: Mapping[str, str]) -> dict[str, Kind]:
    """Return the kinds of a dataclass's fields by the names under which they are written."""
    hints = get_type_hints(holder)
    kinds = {written: kind_of(name, hints[name]) for name, written in names.items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _limit_kinds() -> dict[str, Kind]:
    """Return the kinds of the limits of one model, of which some must have a value."""
    kinds = kinds_of(Limits, {field.name: field.name for field in fields(Limits)})
    needed = DEFAULT_LIMITS.set_values()
    return {
        name: replace(kind, optional=name not in needed) if isinstance(kind, Whole) else kind
        for name, kind in kinds.items()
    }


SERVICE_NAMES = {
    field.name: WRITTEN_AS.get(field.name, field.name)
    for field in fields(Settings)
    if field.name not in SHARED_LIMITS and field.name not in NESTED
}
"""Fields of the settings that are in the table ``service``, and how they are written there."""

LIMIT_KINDS = _limit_kinds()

TABLES: Mapping[str, Mapping[str, Kind]] = {
    SERVICE: kinds_of(Settings, SERVICE_NAMES),
    LIMITS: LIMIT_KINDS,
    SHARED: kinds_of(SharedLimits, {name: name for name in SHARED_LIMITS}),
    TCP: kinds_of(Tcp, {field.name: field.name for field in fields(Tcp)}),
}
"""Every table but those of policies."""

POLICY_KINDS: Mapping[str, Kind] = {
    "name": Text(),
    "users": USERS,
    "groups": GROUPS,
    "certificates": CERTIFICATES,
    "tokens": TOKENS,
    **kinds_of(
        Policy,
        {field.name: field.name for field in fields(Policy) if field.name not in OF_POLICIES},
    ),
}
"""What stands in a table ``policy``, beside its table ``limits``."""
