"""What a worker does that loads a device with threads: its rights, its user, the later root."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_service.sandbox import (
    afresh,
    capabilities,
    credentials,
    empty_root,
    landlock,
    libc,
    namespaces,
    policy,
    process,
    seccomp,
)
from loader_service.sandbox.credentials import UidPool
from loader_service.sandbox.descriptors import close_all_except
from loader_service.sandbox.granted_calls import rules_for
from loader_service.sandbox.layers import Layer
from loader_service.sandbox.syscall_tables import host_architecture
from tests.sandbox.sandboxed import become_ordinary, in_child
from tests.support.host import user_namespaces_usable

pytestmark = pytest.mark.isolation
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has users for its workers")
in_user_namespace = pytest.mark.skipif(
    not user_namespaces_usable(), reason="this host refuses user namespaces to this user"
)
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
CLONE_FS = 0x200


def worker_uid() -> int:
    """A user of the pool."""
    pool = UidPool.for_this_host()
    assert pool is not None
    return pool.take()


class Waiting:
    """A thread that does something when it is told to, says how it went, and stays."""

    def __init__(self) -> None:
        self._act: Callable[[], object] = lambda: None
        self._go, self._done = threading.Event(), threading.Event()
        self._answer: object = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._go.wait()
        try:
            self._answer = self._act()
        except OSError as error:
            self._answer = type(error).__name__
        self._done.set()
        threading.Event().wait()

    def does(self, act: Callable[[], object]) -> object:
        """Have the thread do it; returns its answer."""
        self._act = act
        self._go.set()
        assert self._done.wait(20)
        return self._answer


@as_root
def test_root_keeps_the_change_of_its_user_and_no_more() -> None:
    def work() -> list[object]:
        afresh.give_up_rights(becomes_other=True)
        (own,) = process.status_of_threads()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.dup2(writing, 1)
            os.execv("/bin/cat", ["cat", "/proc/self/status"])
        os.close(writing)
        with os.fdopen(reading) as stream:
            parts = (line.partition(":") for line in stream)
            executed = {name: value.strip() for name, _, value in parts}
        return [{name: it[name] for name in (*SETS, "NoNewPrivs")} for it in (own, executed)]

    own, executed = in_child(work).result()
    kept = f"{capabilities.USER_CHANGE:016x}"
    assert own == dict.fromkeys(SETS, "0" * 16) | {
        "NoNewPrivs": "1",
        "CapPrm": kept,
        "CapEff": kept,
    }
    assert executed == dict.fromkeys(SETS, "0" * 16) | {"NoNewPrivs": "1"}


def test_any_other_user_keeps_nothing() -> None:
    def work() -> list[object]:
        become_ordinary()
        afresh.give_up_rights(becomes_other=False)
        return [*capabilities.held(), *(s["NoNewPrivs"] for s in process.status_of_threads())]

    assert in_child(work).result() == [0, 0, 0, "1"]


@as_root
def test_all_threads_become_the_user_and_lose_their_rights() -> None:
    def work() -> list[object]:
        afresh.give_up_rights(becomes_other=True)
        thread = Waiting()
        afresh.become(61_234)
        return [
            [(s["Uid"], s["Gid"], s["Groups"], s["CapPrm"]) for s in process.status_of_threads()],
            thread.does(lambda: os.setuid(0)),
        ]

    statuses, again = in_child(work).result()
    four = "\t".join(["61234"] * 4)
    assert statuses == [[four, four, "", "0" * 16]] * 2
    assert again == "PermissionError"


@as_root
def test_a_thread_that_stays_root_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_this_thread(uid: int) -> None:
        libc.syscall("setresgid", uid, uid, uid)
        libc.syscall("setresuid", uid, uid, uid)

    def work() -> str:
        monkeypatch.setattr(credentials, "change_user", only_this_thread)
        Waiting()
        try:
            afresh.become(61_234)
        except OSError as error:
            return str(error)
        return "nothing"

    assert "does not change its user" in in_child(work).result()


def left() -> str:
    """What `check_what_is_left` says, or nothing."""
    try:
        afresh.check_what_is_left(alone=True)
    except OSError as error:
        return str(error)
    return ""


@in_user_namespace
@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("nothing", ""),
        ("a working directory", ""),
        ("a directory", "a device leaves a directory open, as descriptor 77"),
        ("a thread's directory", "a thread of a device has a working directory of its own"),
        ("a process", "a device leaves another process behind"),
    ],
)
def test_what_would_lead_out_is_found(kept: str, words: str) -> None:
    def own_directory() -> None:
        libc.syscall("unshare", CLONE_FS)
        os.chdir("/usr")

    def work() -> list[str]:
        become_ordinary()
        namespaces.enter_user_namespace()
        namespaces.enter_namespace(Layer.PID_NAMESPACE)
        reading, writing = os.pipe()
        first = os.fork()
        if first == 0:
            close_all_except({1, 2, writing})
            threads = []
            if kept == "a directory":
                directory = os.open("/usr", os.O_RDONLY | os.O_DIRECTORY)
                os.dup2(directory, 77)
                os.close(directory)
            elif kept == "a working directory":
                os.chdir("/usr")
            elif kept == "a thread's directory":
                threads.append(Waiting())
                threads[0].does(own_directory)
            elif kept == "a process" and os.fork() == 0:
                while True:
                    time.sleep(60)
            os.write(writing, f"{left()};{os.getcwd()}".encode())
            os._exit(0)
        os.waitpid(first, 0)
        return os.read(reading, 1000).decode().split(";")

    said, directory = in_child(work).result()
    assert said == words
    # The listing before it may have failed already.
    assert directory == "/" or kept == "a directory"


def test_it_may_read_the_hosts_files_and_do_no_more(tmp_path: Path) -> None:
    try:
        landlock.abi_version()
    except OSError:
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "there").write_text("text")
    tmp_path.chmod(0o755)

    def work() -> list[object]:
        process.set_no_new_privileges()
        afresh.only_read()
        thread = Waiting()
        acts: list[Callable[[], object]] = [
            lambda: (tmp_path / "there").write_text("changed"),
            lambda: (tmp_path / "made").touch(),
            lambda: (tmp_path / "there").unlink(),
            lambda: os.execv("/bin/true", ["true"]),
        ]
        refused = []
        for act in acts:
            try:
                act()
            except PermissionError:
                refused.append(True)
        return [
            (tmp_path / "there").read_text(),
            os.listdir(tmp_path),
            len(refused),
            thread.does(lambda: (tmp_path / "made").touch()),
        ]

    assert in_child(work).result() == ["text", ["there"], 4, "PermissionError"]


@as_root
@in_user_namespace
def test_a_namespace_knows_root_and_the_workers_user() -> None:
    uid = worker_uid()

    def work() -> list[object]:
        namespaces.enter_user_namespace_as_root(uid)
        known = [
            [line.split() for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
            for kind in ("uid_map", "gid_map")
        ]
        return [known, os.geteuid()]

    maps, inside = in_child(work).result()
    assert maps == [[["0", "0", "1"], [str(policy.INSIDE_UID), str(uid), "1"]]] * 2
    assert inside == 0


@as_root
@in_user_namespace
def test_users_that_cannot_be_mapped_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> str:
        # The kernel refuses a map that has one user twice.
        monkeypatch.setattr(policy, "INSIDE_UID", 0)
        try:
            namespaces.enter_user_namespace_as_root(61_234)
        except OSError as error:
            return str(error)
        return "nothing"

    assert "could not be mapped" in in_child(work).result()


@in_user_namespace
def test_a_root_that_is_laid_hides_nothing_and_is_entered_for_other_processes() -> None:
    def directories() -> list[tuple[int, int]]:
        found = [os.stat(path) for path in ("/", "/tmp", "/var", "/proc", "/dev")]
        return [(status.st_dev, status.st_ino) for status in found]

    def work() -> list[object]:
        become_ordinary()
        namespaces.enter_user_namespace()
        namespaces.enter_namespace(Layer.MOUNT_NAMESPACE)
        before = directories()
        root = empty_root.lay_empty_root(policy.ABOVE_ROOT, nodes=["/dev/zero"])
        hidden = directories() != before
        reading, writing = os.pipe()
        entered_reading, entered_writing = os.pipe()
        other = os.fork()
        if other == 0:
            os.chdir("/")
            os.close(entered_writing)
            os.read(entered_reading, 1)
            seen = f"{os.listdir('/')} {os.listdir('/..')} {os.getcwd()}"
            os.write(writing, seen.encode())
            os._exit(0)
        os.close(writing)
        root.enter()
        os.write(entered_writing, b"!")
        seen = os.read(reading, 1000).decode()
        os.waitpid(other, 0)
        return [hidden, seen, os.listdir("/dev")]

    assert in_child(work).result() == [False, "['dev'] ['dev'] /", ["zero"]]


def test_the_filter_of_system_calls_is_put_on_threads_that_are_there() -> None:
    def work() -> list[object]:
        process.set_no_new_privileges()
        thread = Waiting()
        before = [status["Seccomp"] for status in process.status_of_threads()]
        program = seccomp.template(rules_for(()), host_architecture().name)
        seccomp.load_filter(program.for_process(os.getpid()), all_threads=True)
        # The table refuses to open files, and kills for others: here the first will do.
        return [before, thread.does(lambda: os.open("/etc/passwd", os.O_RDONLY))]

    assert in_child(work).result() == [["0", "0"], "PermissionError"]
