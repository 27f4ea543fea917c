"""What a principal's origins may do: the policy of the service, seen from one of them.

A principal is a uid. An ordinary one may give its programs any origin it likes, and gains nothing
by that: an origin is a name within it. One that the operator lists as an embedder (a browser, a
gateway) speaks for others, whose models are from the web.
"""

from __future__ import annotations

from loader_service.broker.groups import Owner
from loader_service.broker.settings import Settings

OWN_ORIGINS = ("program:", "module:", "interactive:", "uid:")
"""What the origins of a program itself begin with, as the client derives them; no web origin does.
Every other one of an embedder is taken for one from the web."""


def operators_for(settings: Settings, owner: Owner) -> str:
    """Return the profile of operators for an origin's models: the service's, or a stricter one."""
    if owner.principal not in settings.embedder_uids or is_own(owner.origin):
        return settings.operators
    return "hardened"


def is_own(origin: str) -> bool:
    """Whether an embedder's origin is the embedder itself."""
    return any(
        origin.startswith(kind) and not origin.startswith(f"{kind}//") for kind in OWN_ORIGINS
    )
