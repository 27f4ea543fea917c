"""The limits in force: showing them, and giving them other values while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from loader_service.broker.event_stream import EventStream
from loader_service.broker.events import SettingsChanged
from loader_service.broker.principals import LIVE_SHARED_LIMITS, Principals
from loader_service.broker.refusal import refuse
from loader_service.broker.settings import SERVICE_POLICY, Settings
from loader_service.broker.supervisor import Supervisor
from model_loader_wire.causes import Cause
from model_loader_wire.limits import WITH_FRACTIONS, Limits
from model_loader_wire.shared_limits import SHARED_LIMITS

Value = int | float | None
"""None: no limit."""


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit in force."""

    name: str
    value: Value
    at_start: Value
    """What the service was started with."""
    settable: bool
    """Whether it can be set while the service runs."""


class Limiting:
    """Changes the settings in force; models that are there keep the limits that they have."""

    def __init__(self, principals: Principals, supervisor: Supervisor, events: EventStream) -> None:
        self._principals = principals
        self._supervisor = supervisor
        self._events = events
        self._at_start = principals.settings

    def policies(self) -> list[str]:
        """Return the names of the policies that have limits of their own."""
        return [SERVICE_POLICY, *(policy.name for policy in self._principals.settings.policies)]

    def rows(self, policy: str) -> list[LimitRow]:
        """List a policy's limits, and those that all share; raises Refusal for no policy."""
        try:
            now = asdict(_limits_of(self._principals.settings, policy))
        except LookupError as error:
            raise refuse(Cause.INVALID_INPUT, str(error.args[0])) from None
        try:
            before = asdict(_limits_of(self._at_start, policy))
        except LookupError:  # it came with a configuration that was read later
            before = now
        own = [LimitRow(name, value, before[name], True) for name, value in now.items()]
        shared = [
            LimitRow(
                name,
                getattr(self._principals.settings, name),
                getattr(self._at_start, name),
                name in LIVE_SHARED_LIMITS,
            )
            for name in SHARED_LIMITS
        ]
        return own + shared

    def set(self, by: str, policy: str, values: Mapping[str, float | None]) -> None:
        """Give limits other values, all or none; raises Refusal for what cannot be."""
        settings = self._principals.settings
        try:
            limits = _limits_of(settings, policy)
            own: dict[str, Value] = {}
            shared: dict[str, Any] = {}
            for name, value in values.items():
                if name in LIVE_SHARED_LIMITS:
                    shared[name] = _whole(name, value)
                elif name in SHARED_LIMITS:
                    raise ValueError(f"limit {name} can only be set when the service starts")
                elif name in WITH_FRACTIONS or not hasattr(limits, name):
                    own[name] = value
                else:
                    own[name] = _whole(name, value)
            changed = Limits.from_values({**asdict(limits), **own})
            new = replace(_with_limits(settings, policy, changed), **shared)
        except LookupError as error:
            raise refuse(Cause.INVALID_INPUT, str(error.args[0])) from None
        except (TypeError, ValueError) as error:
            raise refuse(Cause.INVALID_INPUT, str(error)) from None
        self._supervisor.check_policies(new)
        before = {row.name: row.value for row in self.rows(policy)}
        self._principals.replace(new)
        changes = ", ".join(
            f"{row.name}: {_said(before[row.name])} to {_said(row.value)}"
            for row in self.rows(policy)
            if row.value != before[row.name]
        )
        if changes:
            where = "" if policy == SERVICE_POLICY else f" of policy {policy!r}"
            self._events.tell(SettingsChanged(by=by, changes=changes + where))


def _limits_of(settings: Settings, policy: str) -> Limits:
    """Return a policy's limits; raises LookupError where there is none of that name."""
    if policy == SERVICE_POLICY:
        return settings.limits
    for each in settings.policies:
        if each.name == policy:
            return each.limits
    raise LookupError(f"there is no policy {policy!r}")


def _with_limits(settings: Settings, policy: str, limits: Limits) -> Settings:
    if policy == SERVICE_POLICY:
        return replace(settings, limits=limits)
    policies = (
        replace(each, limits=limits) if each.name == policy else each for each in settings.policies
    )
    return replace(settings, policies=tuple(policies))


def _whole(name: str, value: float | None) -> int | None:
    """Return the whole number that a limit is; raises ValueError for a fraction."""
    if value is None:
        return None
    if not value.is_integer():
        raise ValueError(f"limit {name} must be a whole number, not {value:g}")
    return int(value)


def _said(value: Value) -> str:
    return "none" if value is None else f"{value:.15g}"
