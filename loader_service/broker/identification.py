"""Who calls at the TCP port: by the token of the call, or else the connection's certificate.

TLS has verified the certificate before: it is of one of the authorities in ``client_ca``, may be
used by a client, and had not expired when the connection was made.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from loader_service.broker.edge import Context
from loader_service.broker.network_client import NetworkClient
from loader_service.broker.refusal import refuse
from loader_service.broker.settings import OF_TOKENS, Settings
from model_loader_wire.causes import Cause, printable

TOKEN_KEY = "authorization"
BEARER = "Bearer "
SHORTEST_TOKEN, LONGEST_TOKEN = 32, 4096
"""Characters of a token: a digest without salt protects nothing that can be guessed."""
ALTERNATIVES = {"peer_dns": "dns:", "peer_uri": "uri:", "peer_email": "email:"}
"""gRPC's names for the subject alternative names that count, and their kinds here."""
ANY_ALTERNATIVE = "x509_subject_alternative_name"
COMMON_NAME = "x509_common_name"
NAME_LENGTH = 200

Peer = Mapping[str, list[bytes]]
"""What gRPC knows of a connection's other end."""


def client_of(context: Context, settings: Settings) -> NetworkClient:
    """Return who calls; raises Refusal for everybody else."""
    # The key has another type in gRPC's own words than its stubs say.
    peer: Peer = context.auth_context()  # type: ignore[assignment]
    if settings.credentials is None or peer.get("transport_security_type") != [b"ssl"]:
        raise refuse(Cause.NOT_ALLOWED, "this service takes no clients of the network any more")
    given = [str(value) for key, value in context.invocation_metadata() or () if key == TOKEN_KEY]
    if given:
        return client_of_token(given, settings.credentials.tokens, settings.clients)
    if settings.credentials.client_ca is None:
        raise refuse(Cause.NOT_ALLOWED, "the call carries no token, and this service asks for one")
    return client_of_certificate(peer, settings.clients)


def client_of_token(
    given: list[str], tokens: Mapping[bytes, str], clients: frozenset[str]
) -> NetworkClient:
    """Return whose token it is; raises Refusal. How long that takes tells nothing of the tokens."""
    token = given[0].removeprefix(BEARER)
    well_formed = len(given) == 1 and given[0].startswith(BEARER)
    if not well_formed or not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
        raise refuse(
            Cause.NOT_ALLOWED,
            f"a call carries one token of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters, as "
            f"{TOKEN_KEY}: {BEARER}TOKEN",
        )
    digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
    found = [name for known, name in tokens.items() if hmac.compare_digest(known, digest)]
    if not found or (client := f"{OF_TOKENS}{found[0]}") not in clients:
        raise refuse(Cause.NOT_ALLOWED, "the token is not one of this service's")
    return NetworkClient(client)


def client_of_certificate(peer: Peer, clients: frozenset[str]) -> NetworkClient:
    """Return whom a certificate names; raises Refusal unless that is one client of the policies.

    Its subject alternative names of the types DNS, URI and e-mail count, whole and letter by
    letter; the common name of its subject does only where it has no alternative name of any type.
    """
    names = names_of(peer)
    found = sorted(names & clients)
    if len(found) > 1:
        raise refuse(
            Cause.NOT_ALLOWED, f"the certificate names several clients: {', '.join(found)}"
        )
    if not found:
        shown = ", ".join(sorted(printable(name, NAME_LENGTH) for name in names)[:8]) or "nobody"
        raise refuse(
            Cause.NOT_ALLOWED,
            f"the certificate names {shown}, and that is no client of this service",
        )
    return NetworkClient(found[0])


def names_of(peer: Peer) -> frozenset[str]:
    """Return what a certificate names, each with its kind."""
    if peer.get(ANY_ALTERNATIVE):
        return frozenset(
            f"{kind}{value.decode('utf-8', 'replace')}"
            for key, kind in ALTERNATIVES.items()
            for value in peer.get(key, ())
        )
    common = peer.get(COMMON_NAME, [])
    # Of several the authority may have meant any.
    if len(common) != 1:
        return frozenset()
    return frozenset({f"cn:{common[0].decode('utf-8', 'replace')}"})
