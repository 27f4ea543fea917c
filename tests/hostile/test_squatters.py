"""Another user sits where a service is expected: the client says nothing to them, and why.

The squatter is a process of another uid that accepts whoever comes and counts every byte. The
client connects as root and as a third user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.shared_models import REPOSITORY
from tests.support.raw_client import HANG_SECONDS

pytestmark = [
    pytest.mark.isolation,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]

SQUATTER, CLIENT = 54321, 54322
SQUAT = """
import os, socket, sys, threading
path, owner, squatter = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
listening = socket.socket(socket.AF_UNIX)
os.setegid(owner), os.seteuid(owner)
listening.bind(path)
os.chmod(path, 0o666)
os.seteuid(0), os.setegid(0)
os.setgroups([]), os.setresgid(*[squatter] * 3), os.setresuid(*[squatter] * 3)
listening.listen()
came, heard = [], []
def serve():
    while True:
        connection, _ = listening.accept()
        came.append(1)
        def hear(connection=connection):
            try:
                heard.append(connection.recv(65536))
                connection.close()
            except ConnectionError:
                pass
        threading.Thread(target=hear, daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
print("listening", flush=True)
sys.stdin.readline()
print(len(came), b"".join(heard), flush=True)
"""
CONNECT = """
import json, os, sys
import model_loader as ml
for line in sys.stdin:
    address, relay, uid = json.loads(line)
    if os.fork():
        os.wait()
        continue
    os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
    try:
        ml.connect(address, relay=relay)
    except ml.ModelLoaderError as error:
        print(json.dumps(f"{type(error).__name__} {error}"), flush=True)
    os._exit(0)
"""
"""Connects as whoever is asked for, in a process of its own that has imported everything."""

Refusal = Callable[[Path, bool, int], str]


@pytest.fixture(scope="module")
def refusal() -> Iterator[Refusal]:
    """Gives what connects as a user, and returns the class and the text of the error."""
    with subprocess.Popen(
        [sys.executable, "-c", CONNECT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:

        def refused(address: Path, relay: bool, uid: int) -> str:
            assert process.stdin
            assert process.stdout
            print(json.dumps([str(address), relay, uid]), file=process.stdin, flush=True)
            return str(json.loads(process.stdout.readline()))

        yield refused
        process.communicate(timeout=HANG_SECONDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short-named folder that every user can enter; whatever is put there goes with it."""
    with tempfile.TemporaryDirectory(prefix="mls-", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def squatting(path: Path, owner: int, heard: list[str], squatter: int = SQUATTER) -> Iterator[None]:
    """Let a user listen at a path that `owner` has bound; puts down what came, at the end."""
    command = [sys.executable, "-c", SQUAT, str(path), str(owner), str(squatter)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        yield
        said, _ = process.communicate("\n", HANG_SECONDS)
        heard.append(said.strip())


def give(path: Path, uid: int, mode: int = 0o755) -> Path:
    """Make a folder of a user's."""
    path.mkdir(parents=True)
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


@pytest.mark.parametrize("relay", [False, True], ids=["direct", "relayed"])
@pytest.mark.parametrize("uid", [0, CLIENT], ids=["root", "user"])
class TestSquatter:
    """Each way to sit there, for each client."""

    def socket_in(self, service: Path, relay: bool, uid: int, owner: int) -> Path:
        """Where this client looks in a service's directory."""
        if not relay:
            return service / "attach.sock"
        return give(service / f"uid-{uid}", owner) / "grpc.sock"

    def test_who_made_the_directory_first(
        self, refusal: Refusal, folder: Path, relay: bool, uid: int
    ) -> None:
        service = give(folder / "service", SQUATTER)
        heard: list[str] = []
        with squatting(self.socket_in(service, relay, uid, SQUATTER), SQUATTER, heard):
            said = refusal(service, relay, uid)
        assert said.startswith(f"SecurityError {service} belongs to uid {SQUATTER}")
        assert "leave the address out to get a private service" in said
        assert heard == ["0 b''"]

    def test_who_may_write_to_the_directory(
        self, refusal: Refusal, folder: Path, relay: bool, uid: int
    ) -> None:
        service = give(folder / "service", uid, 0o1777)
        heard: list[str] = []
        owner = uid if relay else SQUATTER  # of the socket: the room in there is closed to others
        with squatting(self.socket_in(service, relay, uid, uid), owner, heard):
            said = refusal(service, relay, uid)
        assert said.startswith("SecurityError")
        assert "writable by nobody else" in said
        assert heard == ["0 b''"]

    def test_who_listens_in_a_directory_of_ones_own(
        self, refusal: Refusal, folder: Path, relay: bool, uid: int
    ) -> None:
        """Nothing but the kernel's word for the listener's user tells here."""
        service = give(folder / "service", uid)
        heard: list[str] = []
        with squatting(self.socket_in(service, relay, uid, uid), uid, heard):
            said = refusal(service, relay, uid)
        assert said.startswith("SecurityError the service at ")
        assert f"runs as uid {SQUATTER}; only your own uid, root and the system's account" in said
        assert "leave the address out to get a private service" in said
        # It connected to look; whether that was accepted before it left again is the squatter's.
        assert heard in (["0 b''"], ["1 b''"])

    def test_who_put_a_link_there(
        self, refusal: Refusal, folder: Path, relay: bool, uid: int
    ) -> None:
        theirs = give(folder / "theirs", SQUATTER)
        heard: list[str] = []
        with squatting(self.socket_in(theirs, relay, uid, SQUATTER), SQUATTER, heard):
            link = folder / "service"
            link.symlink_to(theirs)
            os.chown(link, SQUATTER, SQUATTER, follow_symlinks=False)
            named = theirs if relay else link
            assert refusal(link, relay, uid).startswith(f"SecurityError {named} belongs to uid")
            service = give(folder / "mine", uid)
            inside = self.socket_in(service, relay, uid, uid)
            inside.symlink_to(self.socket_path(theirs, relay, uid))
            said = refusal(service, relay, uid)
            assert said.startswith(f"SecurityError {inside} is not a socket")
            assert "leave the address out" in said
        assert heard == ["0 b''"]

    def socket_path(self, service: Path, relay: bool, uid: int) -> Path:
        """The same, of a directory that is there."""
        return service / f"uid-{uid}/grpc.sock" if relay else service / "attach.sock"


def test_a_squatter_at_a_place_that_nobody_named_is_passed_over(folder: Path) -> None:
    """By a program of its own: its private service is in that folder, too, and ends with it."""
    program = "import model_loader as ml\nwith ml.connect() as it: print(it.embedded)"
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    environment.pop("MODEL_LOADER_ADDRESS", None)
    service = give(folder / "model-loader", SQUATTER)
    heard: list[str] = []
    with squatting(service / "attach.sock", SQUATTER, heard):
        command = [sys.executable, "-c", program]
        said = subprocess.check_output(command, env=environment, timeout=60, text=True)
    assert said == "True\n"
    assert heard == ["0 b''"]


def test_a_service_of_roots_or_of_ones_own_is_trusted(refusal: Refusal, folder: Path) -> None:
    """And no other is: what answers here is no service, but it is spoken to."""
    for owner in (0, CLIENT):
        service = give(folder / f"service-{owner}", owner)
        heard: list[str] = []
        with squatting(service / "attach.sock", owner, heard, owner):
            assert refusal(service, False, CLIENT).startswith("NetworkError")
        assert not heard[0].endswith("b''")
