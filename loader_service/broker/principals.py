"""Who may use the service, and what holds for each: the one place that is asked.

A principal is a uid, or a client of the TCP port (``network_client``). An ordinary one may give its
programs any origin it likes, and gains nothing by that: an origin is a name within it. One that the
operator lists as an embedder (a browser, a gateway) speaks for others, whose models are from the
web.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from loader_service.broker.network_client import NetworkClient, said
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.settings import Policy, Settings
from model_loader_wire.causes import Cause

if TYPE_CHECKING:
    from loader_service.broker.groups import Owner

OWN_ORIGINS = ("program:", "module:", "interactive:", "uid:", "client:")
"""What the origins of a program itself begin with, as the client derives them; no web origin does.
Every other one of an embedder is taken for one from the web."""
LIVE_SHARED_LIMITS = (
    "total_processes",
    "principal_loads_per_minute",
    "total_loads_per_minute",
    "origin_upload_bytes",
    "total_upload_bytes",
    "origin_calls_in_flight",
    "total_calls_in_flight",
    "origin_bytes_in_flight",
    "total_bytes_in_flight",
    "attach_connections",
    "total_attach_connections",
)
"""Shared limits that the service itself counts, and looks up each time."""
REPLACED = (
    "limits",
    "operators",
    "isolation",
    "allowed_uids",
    "embedder_uids",
    "policies",
    "credentials",
    "log_level",
    *LIVE_SHARED_LIMITS,
)
"""Settings that can change while the service runs; all others hold until it is started again."""


class Principals:
    """The policies in force. They can be replaced; what runs already stays as it is."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        """All settings in force."""
        self._known: dict[int, Policy] = {}

    @property
    def shares(self) -> int:
        """Into how many parts is cut what the users who may attach share equally."""
        return self.settings.shares

    def may_attach(self, uid: int) -> bool:
        """Whether a user may use the service now."""
        return self._policy_of(uid) is not None

    def require(self, uid: int) -> None:
        """Raise Refusal for a user who may not use the service, or not any more."""
        if not self.may_attach(uid):
            raise not_allowed(uid)

    def policy_for(self, owner: Owner) -> Policy:
        """Return what holds for an origin's models.

        For a user who may not attach any more it is what held before, for the models that still
        run; raises Refusal for one who never might.
        """
        uid = owner.principal
        policy = self._policy_of(uid)
        if policy is None:
            if uid not in self._known:
                raise not_allowed(uid)
            policy = self._known[uid]
        self._known[uid] = policy
        if policy.embedder and not is_own(owner.origin):
            return replace(policy, operators="hardened")
        return policy

    def _policy_of(self, principal: int) -> Policy | None:
        if isinstance(principal, NetworkClient):
            return self.settings.policy_of_client(principal.name)
        return self.settings.policy_of(principal)

    def require_model(self, owner: Owner, sha256: bytes) -> None:
        """Raise Refusal for a model that is not on the list of those that may be loaded."""
        policy = self.policy_for(owner)
        if policy.allowed_sha256 is not None and sha256 not in policy.allowed_sha256:
            raise refuse(
                Cause.NOT_ALLOWED,
                f"the policy {policy.name!r} allows only the models on its list, and not the one "
                f"with the SHA-256 {sha256.hex()}",
            )

    def replace(self, settings: Settings) -> list[str]:
        """Let other policies hold from now on; returns the settings that wait for a restart."""
        changes = {name: getattr(settings, name) for name in REPLACED}
        self.settings = replace(self.settings, **changes)
        return [
            field.name
            for field in fields(Settings)
            if getattr(self.settings, field.name) != getattr(settings, field.name)
        ]


def not_allowed(uid: int) -> Refusal:
    """Say that a user may not use the service."""
    return refuse(Cause.FORBIDDEN, f"{said(uid)} may not use this service")


def is_own(origin: str) -> bool:
    """Whether an embedder's origin is the embedder itself."""
    return any(
        origin.startswith(kind) and not origin.startswith(f"{kind}//") for kind in OWN_ORIGINS
    )
