"""README's example from a client that shares no network with the service but one cable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.markdown import blocks
from tests.shared_models import REPOSITORY
from tests.support.certificates import needs_openssl
from tests.support.daemon import Daemon
from tests.support.raw_client import HANG_SECONDS

from .conftest import Site, make_site

HERE, THERE, PORT = "10.213.7.1", "10.213.7.2", 8500
"""Addresses on a cable between two namespaces: nobody else can have them."""


@dataclass(frozen=True)
class Cable:
    """Two network namespaces with a cable between them."""

    service: str
    client: str

    @property
    def networks(self) -> tuple[str, str]:
        """Where the kernel names them."""
        return f"/run/netns/{self.service}", f"/run/netns/{self.client}"

    def enter(self, namespace: str) -> list[str]:
        """Return the words before a command that is to run there."""
        return ["nsenter", f"--net=/run/netns/{namespace}", "--"]


def ip(*words: str) -> None:
    """Run the command; raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not() -> str | None:
    """Say why this host cannot lay a cable, or None."""
    if os.geteuid() != 0:
        return "only root can lay a cable between network namespaces"
    for command in ("ip", "nsenter"):
        if shutil.which(command) is None:
            return f"this host has no {command} command"
    name = f"mlt-try-{os.getpid()}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"this host makes no network namespaces: {error.stderr.strip()}"
    try:
        ip("-n", name, "link", "add", "name", "one", "type", "veth", "peer", "name", "two")
    except subprocess.CalledProcessError as error:
        return f"this host makes no cables (veth): {error.stderr.strip()}"
    finally:
        ip("netns", "del", name)
    return None


pytestmark = [pytest.mark.isolation, pytest.mark.slow, needs_openssl]


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    """Lay a cable; it goes with its namespaces."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    cable = Cable(f"mlt-{os.getpid()}-a", f"mlt-{os.getpid()}-b")
    try:
        for name in (cable.service, cable.client):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ends = [("name", "end", "netns", name) for name in (cable.service, cable.client)]
        ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for name, address in ((cable.service, HERE), (cable.client, THERE)):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "end")
            ip("-n", name, "link", "set", "end", "up")
        yield cable
    finally:
        for name in (cable.service, cable.client):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Certificates for a service at that address."""
    return make_site(tmp_path_factory.mktemp("site"), f"IP:{HERE}")


@pytest.fixture(scope="module")
def daemon(cable: Cable, site: Site) -> Iterator[Daemon]:
    """A service in one of the namespaces."""
    file = site.configuration(f"{HERE}:{PORT}", client_ca=True)
    with closing(Daemon(before=cable.enter(cable.service), config=file)) as daemon:
        yield daemon


def example(
    cable: Cable, site: Site, name: str | None, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run README's example in the other namespace, as that client."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    program = next(block.text for block in blocks(text) if block.language == "python")
    shown = {"CA": site.authority.certificate}
    if name is not None:
        shown |= {"CERTIFICATE": site.folder / f"{name}.pem", "KEY": site.folder / f"{name}.key"}
    environment = {
        **os.environ,
        "HOME": str(folder),
        "MODEL_LOADER_ADDRESS": f"tcp://{HERE}:{PORT}",
        **{f"MODEL_LOADER_TLS_{what}": str(path) for what, path in shown.items()},
    }
    return subprocess.run(
        [*cable.enter(cable.client), sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * HANG_SECONDS,
        check=False,
    )


def test_readmes_example(cable: Cable, site: Site, daemon: Daemon, tmp_path: Path) -> None:
    done = example(cable, site, "alice", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("it is a 2 - read behind ")
    assert "user=dns:alice.example" in daemon.log()
    assert f"{HERE} can be reached by other machines, as it was asked for" in daemon.log()
    networks = [Path(path).stat().st_ino for path in cable.networks]
    assert Path(f"/proc/{daemon.pid}/ns/net").stat().st_ino == networks[0]
    assert len({*networks, Path("/proc/self/ns/net").stat().st_ino}) == 3


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "asks its clients for a certificate, and none was given"),
        ("wrong", "refused the certificate"),
        ("expired", "refused the certificate"),
        ("nobody", "the certificate names dns:nobody.example, and that is no client"),
    ],
)
def test_whom_the_service_does_not_know_is_refused(
    cable: Cable, site: Site, name: str | None, said: str, tmp_path: Path
) -> None:
    done = example(cable, site, name, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "SecurityError" in done.stderr.splitlines()[-1]
    assert said in done.stderr
