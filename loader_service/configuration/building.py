"""From values to settings. The rules are those of the dataclasses: each value is tried alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from loader_service.broker.network_client import NetworkClient
from loader_service.broker.settings import SERVICE_POLICY, Policy, Settings, clients_of, complete
from loader_service.broker.tcp_settings import Tcp
from loader_service.configuration.accounts import members_of, name_of
from loader_service.configuration.credentials import read_credentials, table_is_sound
from loader_service.configuration.default_policy import default_policies
from loader_service.configuration.mistakes import DEFAULT, Keys, Place
from loader_service.configuration.schema import LIMITS, POLICY, SERVICE, SERVICE_NAMES, SHARED, TCP
from loader_service.configuration.values import Values
from model_loader_wire.limits import Limits

FIELDS = {written: name for name, written in SERVICE_NAMES.items()}
"""Fields of the settings by the names in the table ``service``."""


def check_each(values: Values) -> None:
    """Try each value of a source by itself; one that cannot be becomes a mistake."""
    for keys, given in list(values.given.items()):
        table, name = keys[-2], str(keys[-1])
        field = FIELDS[name] if table == SERVICE else name
        try:
            if table == LIMITS:
                Limits(**{field: given.value})
            elif table == TCP:
                Tcp(**{field: given.value})
            elif table in (SERVICE, SHARED):
                Settings(**{"directory": "", field: given.value})
        except (TypeError, ValueError) as error:
            reason = str(error).removeprefix("limit ").removeprefix(f"{field} ")
            values.wrong(given.place, reason)
            del values.given[keys]


def build(values: Values, directory: str) -> Settings:
    """Make settings of values that are right each by itself.

    If they are not right together that becomes a mistake, and what is returned is not to be used.
    """
    chosen: dict[str, Any] = {"directory": directory}
    chosen |= {FIELDS[name]: value for name, value in values.within(SERVICE).items()}
    chosen |= values.within(SHARED)
    chosen["limits"] = complete(Limits(**values.within(LIMITS)))
    try:
        settings = Settings(**chosen)
    except ValueError as error:
        _wrong_together(values, str(error), (), DEFAULT)
        settings = Settings(directory=directory)
    tcp = Tcp(**values.within(TCP))
    settings = replace(settings, tcp=tcp, credentials=read_credentials(values, tcp))
    policies = tuple(_policies(values, settings))
    return replace(settings, policies=policies or default_policies())


def _policies(values: Values, settings: Settings) -> Iterator[Policy]:
    """Yield the policies; what one does not say is what the service's own values say."""
    named: dict[int, str] = {}
    of_clients: dict[str, str] = {}
    told_apart: dict[int, str] = {}
    names = {SERVICE_POLICY}
    own = settings.own_policy()
    for number, place in enumerate(values.policies):
        keys: Keys = (POLICY, number)
        given, limits = values.within(*keys), values.within(*keys, LIMITS)
        name = given.pop("name", f"policy {number + 1}")
        if name in names:
            reason = f"there is a policy {name!r} already, and limits are set by its name"
            values.wrong(_of_policy(values, place, "name"), reason)
        names.add(name)
        uids, gids = (given.pop(what, frozenset()) for what in ("users", "groups"))
        clients = (given.get(what, frozenset()) for what in ("certificates", "tokens"))
        if not (uids | gids).union(*clients) and not _is_wrong(values, place):
            reason = "it needs users, groups, certificates or tokens"
            values.wrong(place, f"this policy is for nobody: {reason}")
        for uid in sorted(uids & named.keys()):
            values.wrong(place, f"{name_of(uid)} has a policy already: {named[uid]!r}")
        named |= dict.fromkeys(uids, name)
        try:
            policy = replace(
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
            continue
        for client in sorted(clients_of(policy) & of_clients.keys()):
            values.wrong(place, f"{client} has a policy already: {of_clients[client]!r}")
        of_clients |= dict.fromkeys(clients_of(policy), name)
        for client in sorted(clients_of(policy)):
            if (other := told_apart.setdefault(NetworkClient(client), client)) != client:
                # Nobody meets one by chance; but who chooses a name may have looked for it.
                reason = "their numbers are the same, so each would be the other"
                values.wrong(place, f"{client} cannot be a client beside {other}: {reason}")
        if table_is_sound(values):
            _check_clients(values, settings, policy, place)
        yield policy


def _check_clients(values: Values, settings: Settings, policy: Policy, place: Place) -> None:
    """Note a policy that is for clients who cannot come in."""
    tcp, credentials = settings.tcp, settings.credentials
    if policy.certificates and (tcp.listen is None or tcp.client_ca is None):
        reason = "nobody can show a certificate: see listen and client_ca in the table tcp"
        values.wrong(_of_policy(values, place, "certificates"), reason)
    if policy.tokens and (tcp.listen is None or tcp.tokens is None):
        reason = "nobody can show a token: see listen and tokens in the table tcp"
        values.wrong(_of_policy(values, place, "tokens"), reason)
    elif credentials is not None:
        for name in sorted(policy.tokens - {*credentials.tokens.values()}):
            reason = f"there is no token {name!r} in {tcp.tokens}"
            values.wrong(_of_policy(values, place, "tokens"), reason)


def _of_policy(values: Values, policy: Place, name: str) -> Place:
    """Return the place of a setting of that policy."""
    written = f"{policy.name}.{name}"
    found = (given.place for given in values.given.values() if given.place.name == written)
    return next(found, policy)


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
