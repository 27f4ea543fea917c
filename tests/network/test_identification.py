"""Who a certificate or a token says that a caller is."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from loader_service.broker import identification
from loader_service.broker.groups import Owner, path_of
from loader_service.broker.identification import (
    client_of_certificate,
    client_of_token,
    names_of,
)
from loader_service.broker.network_client import (
    FIRST,
    NOBODY,
    STRANGER,
    NetworkClient,
    label_of,
    own_origin,
    said,
)
from loader_service.broker.principals import is_own
from loader_service.broker.refusal import Refusal
from model_loader_wire.causes import Cause

TOKEN = "t" * 32
TOKENS = {
    hashlib.sha256(TOKEN.encode()).digest(): "camera",
    hashlib.sha256(b"o" * 40).digest(): "other",
}
CLIENTS = frozenset({"token:camera", "dns:a.example", "dns:b.example", "cn:a", "uri:spiffe://x/a"})


def test_a_client_is_a_principal_that_no_uid_is() -> None:
    client = NetworkClient("dns:a.example")
    assert client == NetworkClient("dns:a.example") != NetworkClient("dns:b.example")
    assert FIRST <= client < 2**53
    assert NOBODY == 2**32 - 1
    assert {client: 1}[NetworkClient("dns:a.example")] == 1
    assert (label_of(client), label_of(1000)) == ("dns:a.example", 1000)
    assert (said(client), said(1000)) == ("client dns:a.example", "uid 1000")
    assert (own_origin(client), own_origin(7)) == ("client:dns:a.example", "uid:7")
    assert is_own(own_origin(client))
    # The same at every start, so that nothing that is kept changes hands.
    assert int(NetworkClient("token:camera")) == 208_148_555_118_763
    assert int(STRANGER) not in {int(NetworkClient(name)) for name in CLIENTS}


def test_a_clients_name_is_no_part_of_a_path() -> None:
    client = NetworkClient("uri:spiffe://a.example/../../camera")
    assert f"{client}" == str(client) == str(int(client))
    assert path_of(Owner(client, "o")) == f"user-{int(client)}/origin-o"


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ({"x509_common_name": [b"a"]}, "cn:a"),
        (
            {"x509_subject_alternative_name": [b"a.example"], "peer_dns": [b"a.example"]},
            "dns:a.example",
        ),
        (
            {
                "x509_common_name": [b"a"],
                "x509_subject_alternative_name": [b"spiffe://x/a", b"10.0.0.1"],
                "peer_uri": [b"spiffe://x/a"],
                "peer_ip": [b"10.0.0.1"],
            },
            "uri:spiffe://x/a",
        ),
    ],
)
def test_a_certificate_names_one_client(peer: dict[str, list[bytes]], client: str) -> None:
    assert client_of_certificate(peer, CLIENTS) == NetworkClient(client)


@pytest.mark.parametrize(
    "peer",
    [
        {},
        {"x509_common_name": [b"A"]},
        {"x509_common_name": [b"a", b"a"]},
        {"x509_common_name": [b"dns:a.example"]},
        # A common name beside any alternative name counts for nothing.
        {
            "x509_common_name": [b"a"],
            "x509_subject_alternative_name": [b"10.0.0.1"],
            "peer_ip": [b"10.0.0.1"],
        },
        # The text of one type is not taken for another's.
        {"x509_subject_alternative_name": [b"a.example"], "peer_uri": [b"a.example"]},
        {"x509_subject_alternative_name": [b"a.example"], "peer_email": [b"a.example"]},
        {"x509_subject_alternative_name": [b"x"], "peer_dns": [b"a.example\0", b"*.example"]},
        # Two clients are none.
        {
            "x509_subject_alternative_name": [b"a.example", b"b.example"],
            "peer_dns": [b"a.example", b"b.example"],
        },
        # A token's name is no certificate's.
        {"x509_subject_alternative_name": [b"camera"], "peer_dns": [b"camera"]},
    ],
)
def test_a_certificate_that_names_nobody_or_two_is_refused(peer: dict[str, list[bytes]]) -> None:
    with pytest.raises(Refusal) as caught:
        client_of_certificate(peer, CLIENTS)
    assert caught.value.failure.cause is Cause.NOT_ALLOWED
    assert names_of(peer) & {"token:camera"} == set()


def test_a_token_is_its_digests_client() -> None:
    assert client_of_token([f"Bearer {TOKEN}"], TOKENS, CLIENTS) == NetworkClient("token:camera")


@pytest.mark.parametrize(
    "given",
    [
        [TOKEN],
        [f"bearer {TOKEN}"],
        ["Bearer "],
        [f"Bearer {TOKEN[1:]}"],
        [f"Bearer {TOKEN}x"],
        [f"Bearer {'t' * 5000}"],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        # Known, and for nobody.
        [f"Bearer {'o' * 40}"],
        # Who has the file of digests has no token.
        [f"Bearer {next(iter(TOKENS)).hex()}"],
    ],
)
def test_what_is_no_token_of_a_client_is_refused_and_not_repeated(given: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        client_of_token(given, TOKENS, CLIENTS)
    assert caught.value.failure.cause is Cause.NOT_ALLOWED
    assert "ttt" not in str(caught.value)


def test_every_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, digest: bytes) -> bool:
        compared.append(known)
        return hmac.compare_digest(known, digest)

    class Compares:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(identification, "hmac", Compares)
    client_of_token([f"Bearer {TOKEN}"], TOKENS, CLIENTS)
    assert compared == list(TOKENS)
