"""A service with a TCP port, an authority, and what its clients show."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.daemon import Daemon

TOKEN, OTHER_TOKEN = "camera-" + "t" * 32, "another-" + "o" * 32
POLICIES = """
[[policy]]
name = "clients"
certificates = ["dns:alice.example", "cn:bob"]
tokens = ["camera", "another"]
[policy.limits]
processes = 3
[[policy]]
name = "small"
certificates = ["dns:small.example"]
[policy.limits]
processes = 1
tensor_bytes = 1000
"""


class Shown(dict[str, Any]):
    """What a client connects with."""


@dataclass(frozen=True)
class Site:
    """An authority, the service's files, and its clients' certificates."""

    folder: Path
    authority: Authority
    stranger: Authority
    """An authority that the service does not know."""

    def client(self, name: str, token: str | None = None) -> Shown:
        """Give what a client shows, whose certificate was made by `site`."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        shown = Shown(ca=self.authority.certificate, certificate=certificate, key=key)
        if token is not None:
            shown["token"] = token
        return shown

    def configuration(self, listen: str, *, client_ca: bool, policies: str = POLICIES) -> Path:
        """Write a configuration with a port; returns its file."""
        lines = [
            "[tcp]",
            f"listen = '{listen}'",
            f"certificate = '{self.folder / 'server.pem'}'",
            f"key = '{self.folder / 'server.key'}'",
            f"tokens = '{self.folder / 'tokens'}'",
        ]
        if client_ca:
            lines.append(f"client_ca = '{self.authority.certificate}'")
        file = self.folder / f"config-{client_ca}.toml"
        file.write_text("\n".join([*lines, policies]), encoding="utf-8")
        return file


def make_site(folder: Path, names: str) -> Site:
    """Make an authority and all that it signs; `names` are those of the service."""
    site = Site(folder, Authority(folder), Authority(folder / "elsewhere", "elsewhere"))
    sign = site.authority.sign
    sign("server", names)
    sign("alice", "DNS:alice.example")
    sign("bob", common_name="bob")
    sign("small", "DNS:small.example")
    sign("nobody", "DNS:nobody.example")
    sign("expired", "DNS:alice.example", days=-1)
    sign("for-servers", "DNS:alice.example", usage="serverAuth")
    for path in site.stranger.sign("wrong", "DNS:alice.example"):
        path.rename(folder / path.name)
    tokens = folder / "tokens"
    lines = [f"{name} {digest(token)}" for name, token in (("camera", TOKEN),)]
    tokens.write_text("\n".join([*lines, f"another {digest(OTHER_TOKEN)}"]), encoding="ascii")
    tokens.chmod(0o600)
    return site


def digest(token: str) -> str:
    """What stands in the file of tokens."""
    return hashlib.sha256(token.encode()).hexdigest()


def address_of(daemon: Daemon) -> str:
    """Where a daemon's port is, by its log."""
    found = re.search(r"clients of the network, by \w+, at (\S+)", daemon.log())
    assert found is not None, daemon.log()
    return f"tcp://{found[1]}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Certificates for a service of this machine."""
    return make_site(tmp_path_factory.mktemp("site"), "IP:127.0.0.1,DNS:localhost")


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    """A service whose clients show certificates, and perhaps tokens."""
    file = site.configuration("127.0.0.1:0", client_ca=True)
    with closing(Daemon(config=file, metrics=True)) as daemon:
        yield daemon
        assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(scope="module")
def address(daemon: Daemon) -> str:
    """Where its port is."""
    return address_of(daemon)
