"""The TCP port is configured whole, or refused with the place and the reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from loader_service.broker import network_client
from loader_service.broker.network_client import NetworkClient
from loader_service.broker.settings import Settings
from loader_service.broker.tcp_settings import Tcp, host_and_port
from loader_service.configuration.configuration import Configuration, configure
from loader_service.configuration.mistakes import ConfigurationError
from loader_service.configuration.shown import as_json, as_toml
from tests.support.certificates import Authority, needs_openssl, openssl

pytestmark = needs_openssl

DIGEST = hashlib.sha256(b"a token").hexdigest()
LISTEN = {"listen": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a port needs, and an authority's own key among it."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    certificate, key = authority.sign("server", "IP:127.0.0.1")
    tokens = folder / "tokens"
    tokens.write_text(f"# of whom\ncamera {DIGEST}  # the old one\ncamera {'0' * 64}\n", "ascii")
    return {
        "certificate": str(certificate),
        "key": str(key),
        "client_ca": str(authority.certificate),
        "tokens": str(tokens),
    }


def read(folder: Path, tcp: Mapping[str, object], policies: str = "") -> Configuration:
    """Configure by a file with that table."""
    lines = [f"{name} = {value!r}" for name, value in tcp.items()]
    file = folder / "config.toml"
    file.write_text("\n".join(["[tcp]", *lines, policies]), encoding="utf-8")
    return configure("/d", file)


def mistakes(folder: Path, tcp: Mapping[str, object], policies: str = "") -> list[str]:
    """Every mistake, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, tcp, policies)
    return [str(item).replace(f"{folder}/config.toml", "FILE") for item in caught.value.mistakes]


def test_a_port_has_what_its_files_hold(tmp_path: Path, files: dict[str, str]) -> None:
    policies = "[[policy]]\ncertificates = ['dns:a.example']\ntokens = ['camera']"
    found = read(tmp_path, LISTEN | files, policies)
    settings = found.settings
    assert settings.tcp == replace(Tcp(listen="127.0.0.1:0"), **files)  # type: ignore[arg-type]
    credentials = settings.credentials
    assert credentials is not None
    assert credentials.key == Path(files["key"]).read_bytes()
    assert credentials.tokens == {bytes.fromhex(DIGEST): "camera", bytes(32): "camera"}
    assert settings.clients == {"dns:a.example", "token:camera"}
    assert settings.policy_of_client("token:camera") == settings.policies[0]
    assert settings.policy_of_client("dns:b.example") is None
    assert settings.policy_of_client("camera") is None
    # What is shown gives the same again, and holds nothing of what is in the files.
    shown = as_toml(found)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "config.toml").write_text(shown, encoding="utf-8")
    assert configure("/d", tmp_path / "again" / "config.toml").settings == settings
    for text in (shown, as_json(found), repr(settings)):
        assert DIGEST not in text
        assert "PRIVATE" not in text


def test_the_environment_overrides_the_file(tmp_path: Path, files: dict[str, str]) -> None:
    environment = {f"MODEL_LOADER_TCP_{name.upper()}": value for name, value in files.items()}
    environment["MODEL_LOADER_TCP_LISTEN"] = "[::1]:7"
    assert configure("/d", None, environment).settings.tcp.listen == "[::1]:7"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["certificate"], "FILE:2: tcp.listen: the port needs a certificate: without TLS there is"),
        (["key"], "FILE:2: tcp.listen: the port needs a key: without TLS there is none"),
        (
            ["client_ca", "tokens"],
            "FILE:2: tcp.listen: the port needs client_ca or tokens: nobody is let in without",
        ),
    ],
)
def test_a_port_without_credentials_is_refused(
    missing: list[str], said: str, tmp_path: Path, files: dict[str, str]
) -> None:
    given = {name: value for name, value in files.items() if name not in missing}
    (mistake,) = mistakes(tmp_path, LISTEN | given)
    assert mistake.startswith(said)


@pytest.mark.parametrize("missing", ["client_ca", "tokens"])
def test_one_kind_of_credentials_is_enough(
    missing: str, tmp_path: Path, files: dict[str, str]
) -> None:
    given = {name: value for name, value in files.items() if name != missing}
    assert read(tmp_path, LISTEN | given).settings.credentials is not None


def test_files_without_a_port_are_for_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    (mistake,) = mistakes(tmp_path, {"key": files["key"]})
    assert mistake == "FILE:2: tcp.key: is for a port, and there is none: see listen"
    assert configure("/d").settings == Settings(directory="/d")


@pytest.mark.parametrize(
    "listen",
    ["8500", ":8500", "*:8500", "localhost:8500", "127.0.0.1", "::1:8500", "[127.0.0.1]:8500"],
)
def test_an_address_is_spelled_out(listen: str, tmp_path: Path, files: dict[str, str]) -> None:
    (mistake,) = mistakes(tmp_path, files | {"listen": listen})
    assert mistake.startswith("FILE:6: tcp.listen: must be an address of this machine and a port")


def test_addresses_and_ports() -> None:
    assert str(host_and_port("[::]:65535")[0]) == "::"
    assert host_and_port("0.0.0.0:1")[1] == 1
    assert Tcp(listen="127.8.0.1:1").is_loopback
    assert Tcp(listen="[::1]:1").is_loopback
    assert not Tcp(listen="0.0.0.0:1").is_loopback
    with pytest.raises(ValueError, match="no port '65536'"):
        Tcp(listen="127.0.0.1:65536")
    with pytest.raises(ValueError, match="key must be an absolute path"):
        Tcp(key="server.key")
    with pytest.raises(ValueError, match="idle_seconds must be above zero"):
        Tcp(idle_seconds=0)


def test_files_that_cannot_be_trusted_or_read_are_refused(
    tmp_path: Path, files: dict[str, str]
) -> None:
    folder = Path(files["key"]).parent
    bad = tmp_path / "bad"

    def refusal(name: str, data: bytes, mode: int = 0o600) -> str:
        bad.write_bytes(data)
        bad.chmod(mode)
        (mistake,) = mistakes(tmp_path, LISTEN | files | {name: str(bad)})
        return mistake

    key = Path(files["key"]).read_bytes()
    said = refusal("key", key, 0o604)
    assert said.startswith(f"FILE:4: tcp.key: {bad} is a private key that every user of this mach")
    assert "(mode 604)" in said
    read(tmp_path, LISTEN | files | {"key": str(_written(tmp_path / "group", key, 0o640))})
    assert "tcp.tokens: " in refusal("tokens", b"", 0o662)
    assert "can be changed by others than root" in refusal("client_ca", b"", 0o620)
    assert refusal("client_ca", b"nothing").endswith("tcp.client_ca: holds no certificates in PEM")
    assert "the key is not that of the certificate" in refusal(
        "key", (folder / "authority.key").read_bytes()
    )
    assert "certificate and key cannot be read as PEM" in refusal("certificate", b"-----BEGIN")
    assert "certificate of an authority" in refusal(
        "client_ca", Path(files["certificate"]).read_bytes()
    )
    encrypted = tmp_path / "encrypted"
    openssl("ec", "-in", files["key"], "-out", encrypted, "-aes128", "-passout", "pass:secret")
    assert "the key has a passphrase" in refusal("key", encrypted.read_bytes())
    bad.unlink()
    (mistake,) = mistakes(tmp_path, LISTEN | files | {"key": str(bad)})
    assert mistake.endswith(f"tcp.key: {bad} cannot be read: No such file or directory")
    os.mkfifo(bad)
    (mistake,) = mistakes(tmp_path, LISTEN | files | {"tokens": str(bad)})
    assert mistake.endswith(f"tcp.tokens: {bad} is no file")


def _written(path: Path, data: bytes, mode: int) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_what_is_no_line_of_a_token_is_not_repeated(tmp_path: Path, files: dict[str, str]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"\ncamera the-token-itself\nother {DIGEST}\nanother {DIGEST}\n", "ascii")
    tokens.chmod(0o600)
    found = mistakes(tmp_path, LISTEN | files | {"tokens": str(tokens)})
    assert found == [
        f"{tokens}:2: tokens: a line is a name and a SHA-256 (64 hexadecimal digits), and this is "
        "none",
        f"{tokens}:4: tokens: this is also the token of 'other'",
    ]


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ("[[policy]]\ntokens = ['other']", "policy[1].tokens: there is no token 'other' in "),
        ("[[policy]]\ncertificates = ['a.example']", "policy[1].certificates: 'a.example' must "),
        ("[[policy]]\ncertificates = ['dns:*.x']", "policy[1].certificates: 'dns:*.x' names nobo"),
        ("[[policy]]\ncertificates = ['cn:']", "policy[1].certificates: 'cn:' names nobody"),
        (
            "[[policy]]\nname = 'a'\ntokens = ['camera']\n[[policy]]\ntokens = ['camera']",
            "policy[2]: token:camera has a policy already: 'a'",
        ),
    ],
)
def test_a_policy_is_for_clients_who_can_come_in(
    policies: str, said: str, tmp_path: Path, files: dict[str, str]
) -> None:
    (mistake,) = mistakes(tmp_path, LISTEN | files, policies)
    assert said in mistake
    assert mistake.startswith("FILE:")


def test_no_client_is_taken_for_another(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one byte of the digest there are twins among 257 names; with six it takes a search.
    monkeypatch.setattr(network_client, "SPREAD_BYTES", 1)
    seen: dict[int, str] = {}
    for name in (f"dns:{number}.example" for number in range(257)):
        if (twin := seen.setdefault(NetworkClient(name), name)) != name:
            break
    policies = "".join(f"[[policy]]\ncertificates = ['{each}']\n" for each in (twin, name))
    assert mistakes(tmp_path, LISTEN | files, policies) == [
        f"FILE:9: policy[2]: {name} cannot be a client beside {twin}: their numbers are the same, "
        "so each would be the other"
    ]


def test_clients_need_their_kind_of_credentials(tmp_path: Path, files: dict[str, str]) -> None:
    both = "[[policy]]\ncertificates = ['cn:a']\ntokens = ['camera']"
    without = {name: value for name, value in files.items() if name != "client_ca"}
    assert mistakes(tmp_path, LISTEN | without, both) == [
        "FILE:7: policy[1].certificates: nobody can show a certificate: see listen and client_ca "
        "in the table tcp"
    ]
    assert len(mistakes(tmp_path, {}, both)) == 2
