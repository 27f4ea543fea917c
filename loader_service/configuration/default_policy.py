"""Whom the machine's service serves before anybody has written a policy: its group, modestly."""

from __future__ import annotations

import grp
from dataclasses import replace

from loader_service.broker.settings import Policy
from loader_service.configuration.accounts import members_of
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.system_service import ACCOUNT, runs_for_the_machine

GROUP = ACCOUNT
"""Whose members may use the machine's service, where the system has a group of that name."""
MODEST_LIMITS = replace(
    DEFAULT_LIMITS,
    memory_bytes=512 << 20,
    processes=16,
    model_bytes=128 << 20,
    tensor_bytes=64_000_000,
    output_bytes=64_000_000,
    models_per_origin=8,
    loads_per_minute=600,
    upload_bytes=256 << 20,
    calls_in_flight=64,
    bytes_in_flight=256 << 20,
)


def default_policies() -> tuple[Policy, ...]:
    """Return what holds where no policy is written; an ordinary user's service has none."""
    if not runs_for_the_machine():
        return ()
    try:
        gid = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return ()
    return (
        Policy(
            name=GROUP,
            gids=frozenset({gid}),
            members=members_of(gid),
            limits=MODEST_LIMITS,
        ),
    )
