"""From values to settings. The rules are those of the dataclasses: each value is tried alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from loader_service.broker.settings import Policy, Settings, complete
from loader_service.configuration.accounts import members_of, name_of
from loader_service.configuration.default_policy import default_policies
from loader_service.configuration.mistakes import DEFAULT, Keys, Place
from loader_service.configuration.schema import LIMITS, POLICY, SERVICE, SERVICE_NAMES, SHARED
from loader_service.configuration.values import Values
from model_loader_wire.limits import Limits

FIELDS = {written: name for name, written in SERVICE_NAMES.items()}
"""Fields of the settings by the names in the table ``service``."""


def build(values: Values, directory: str) -> Settings:
    """Make settings of what is right; what is not becomes mistakes, and nothing is to be used."""
    chosen: dict[str, Any] = {"directory": directory}
    chosen |= _tried(values, (SERVICE,), FIELDS, lambda one: Settings(**{"directory": "", **one}))
    chosen |= _tried(values, (SHARED,), {}, lambda one: Settings(directory="", **one))
    chosen["limits"] = complete(Limits(**_limits(values, (LIMITS,))))
    try:
        settings = Settings(**chosen)
    except ValueError as error:
        _wrong_together(values, str(error), (), DEFAULT)
        settings = Settings(directory=directory)
    policies = tuple(_policies(values, settings))
    return replace(settings, policies=policies or default_policies())


def _tried(
    values: Values,
    keys: Keys,
    fields: Mapping[str, str],
    holder: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Return a table's values by the fields that they fill; one that cannot be is a mistake."""
    right = {}
    for name, given in values.within(*keys).items():
        field = fields.get(name, name)
        try:
            holder({field: given.value})
        except (TypeError, ValueError) as error:
            reason = str(error).removeprefix("limit ").removeprefix(f"{field} ")
            values.wrong(given.place, reason)
        else:
            right[field] = given.value
    return right


def _limits(values: Values, keys: Keys) -> dict[str, Any]:
    return _tried(values, keys, {}, lambda one: Limits(**one))


def _policies(values: Values, settings: Settings) -> Iterator[Policy]:
    """Yield the policies; what one does not say is what the service's own values say."""
    named: dict[int, str] = {}
    own = settings.own_policy()
    for number, place in enumerate(values.policies):
        keys: Keys = (POLICY, number)
        given = {name: given.value for name, given in values.within(*keys).items()}
        limits = _limits(values, (*keys, LIMITS))
        name = given.pop("name", f"policy {number + 1}")
        uids, gids = (given.pop(what, frozenset()) for what in ("users", "groups"))
        if not uids | gids and not _is_wrong(values, place):
            values.wrong(place, "this policy is for nobody: it needs users or groups")
        for uid in sorted(uids & named.keys()):
            values.wrong(place, f"{name_of(uid)} has a policy already: {named[uid]!r}")
        named |= dict.fromkeys(uids, name)
        try:
            yield replace(
                own,
                name=name,
                uids=uids,
                gids=gids,
                members=frozenset().union(*map(members_of, gids)),
                limits=replace(own.limits, **limits),
                **given,
            )
        except ValueError as error:
            _wrong_together(values, str(error), keys, place)


def _is_wrong(values: Values, policy: Place) -> bool:
    """Whether something that stands in a policy could not be read."""
    names = [mistake.place.name for mistake in values.mistakes]
    return any(name == policy.name or name.startswith(f"{policy.name}.") for name in names)


def _wrong_together(values: Values, reason: str, keys: Keys, place: Place) -> None:
    """Note what is wrong with values that are right each by itself, at one that it is about."""
    for name, given in values.given.items():
        if name[: len(keys)] == keys and str(name[-1]) in reason:
            place = given.place
    values.wrong(place, reason)
