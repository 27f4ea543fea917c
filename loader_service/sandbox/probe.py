"""Which layers this host gives: each is entered for real in a process of its own, never guessed.

`python -m loader_service.sandbox.probe --json` prints the findings. `probe` runs that as a
subprocess, so a program with threads can ask without forking itself.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loader_service.sandbox import (
    capabilities,
    cgroup,
    credentials,
    empty_root,
    landlock,
    namespaces,
    policy,
    process,
    resource_limits,
    seccomp,
)
from loader_service.sandbox.layers import CGROUP_LAYERS, MINIMUM, Layer
from loader_service.sandbox.remedies import REMEDIES
from loader_service.sandbox.resource_limits import ResourceLimits
from loader_service.sandbox.syscall_tables import host_architecture

_CHILD_SECONDS: Final = 10
_ALL_SECONDS: Final = 60


@dataclass(frozen=True)
class Finding:
    """What the host said to one layer."""

    available: bool
    detail: str
    """What was seen: the effect, or the refusal."""
    remedy: str
    """What an administrator can do; empty for a layer that is available."""


def probe() -> dict[Layer, Finding]:
    """Try every layer in a subprocess, which takes about a quarter of a second.

    A broker that has a cgroup tree should have made it before: on cgroup version 2 the subprocess
    shares the broker's cgroup. Raises `RuntimeError` when the subprocess fails.
    """
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--json"],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the sandbox probe failed: {done.stderr.strip()}")
    answers: dict[str, dict[str, object]] = json.loads(done.stdout)
    return {
        Layer(name): Finding(bool(a["available"]), str(a["detail"]), str(a["remedy"]))
        for name, a in answers.items()
    }


def missing_minimum(findings: Mapping[Layer, Finding]) -> frozenset[Layer]:
    """The layers without which the service must refuse to start and which are not available."""
    return frozenset(layer for layer in MINIMUM if not findings[layer].available)


def probe_here() -> dict[Layer, Finding]:
    """Try every layer in forks of this process, which must have one thread."""
    if not process.is_single_threaded():
        raise RuntimeError("layers are probed by a process of one thread")
    findings = {layer: _in_child(layer, attempt) for layer, attempt in _ATTEMPTS.items()}
    return findings | _cgroup_findings()


def _in_child(layer: Layer, attempt: Callable[[], str]) -> Finding:
    """Run `attempt` in a fork: its answer is the effect seen, an exception is the refusal."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_CHILD_SECONDS)
        try:
            answer = [True, attempt()]
        except Exception as error:
            answer = [False, str(error)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        text = report.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        ending = os.waitstatus_to_exitcode(status)
        return Finding(False, f"the attempt ended with status {ending}", REMEDIES[layer])
    available, detail = json.loads(text)
    return Finding(available, detail, "" if available else REMEDIES[layer])


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


def _unprivileged_uid() -> str:
    pool = credentials.UidPool.for_this_host()
    _expect(pool is not None, "the service does not run as root: all workers share its user")
    assert pool is not None
    uid = pool.take()
    credentials.change_user(uid)
    try:
        os.setuid(0)
    except PermissionError:
        return f"became user {uid} and could not go back"
    raise RuntimeError("the former user could be taken back")


def _user_namespace() -> str:
    namespaces.enter_user_namespace()
    _expect(os.getuid() == policy.INSIDE_UID, f"the user inside is {os.getuid()}")
    return f"the user is {policy.INSIDE_UID} inside"


def _enter(layer: Layer) -> None:
    """Enter one namespace the way workers do: in a user namespace if the host has any."""
    link = {
        Layer.MOUNT_NAMESPACE: "mnt",
        Layer.NETWORK_NAMESPACE: "net",
        Layer.IPC_NAMESPACE: "ipc",
        Layer.UTS_NAMESPACE: "uts",
        Layer.CGROUP_NAMESPACE: "cgroup",
    }.get(layer)
    try:
        namespaces.enter_user_namespace()
    except OSError:
        if os.geteuid() != 0:
            raise
    before = link and os.readlink(f"/proc/self/ns/{link}")
    namespaces.enter_namespace(layer)
    after = link and os.readlink(f"/proc/self/ns/{link}")
    _expect(link is None or before != after, "the namespace is still the host's")


def _mount_namespace() -> str:
    _enter(Layer.MOUNT_NAMESPACE)
    return "mounts are its own"


def _empty_root() -> str:
    _enter(Layer.MOUNT_NAMESPACE)
    empty_root.enter_empty_root()
    _expect(not os.listdir("/"), "the root directory is not empty")
    try:
        os.mkdir("/made")
    except OSError:
        return "the root directory is empty and takes no file"
    raise RuntimeError("a directory could be made in the root")


def _pid_namespace() -> str:
    _enter(Layer.PID_NAMESPACE)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    _, status = os.waitpid(pid, 0)
    _expect(status == 0, "the child is not process 1")
    return "a child is process 1"


def _network_namespace() -> str:
    _enter(Layer.NETWORK_NAMESPACE)
    interfaces = {name for _, name in socket.if_nameindex()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("127.0.0.1", 9))
        except OSError:
            return f"no address can be reached (interfaces: {', '.join(sorted(interfaces))})"
    raise RuntimeError("the loopback interface works")


def _ipc_namespace() -> str:
    _enter(Layer.IPC_NAMESPACE)
    return "System V and POSIX queues are its own"


def _uts_namespace() -> str:
    _enter(Layer.UTS_NAMESPACE)
    _expect(os.uname().nodename == policy.HOST_NAME, "the host name is still the host's")
    return f"the host name is {policy.HOST_NAME!r}"


def _cgroup_namespace() -> str:
    _enter(Layer.CGROUP_NAMESPACE)
    lines = Path("/proc/self/cgroup").read_text().split()
    _expect(all(line.endswith(":/") for line in lines), "the cgroup's path can still be seen")
    return "its cgroup looks like the root"


def _capabilities() -> str:
    capabilities.drop_all()
    bounding = capabilities.bounding_set()
    return "every set is empty" if not bounding else "every set but the bounding set is empty"


def _no_new_privileges() -> str:
    process.set_no_new_privileges()
    _expect("NoNewPrivs:\t1" in Path("/proc/self/status").read_text(), "/proc does not show it")
    return "no_new_privs is set"


def _landlock() -> str:
    process.set_no_new_privileges()
    abi = landlock.refuse_everything()
    try:
        os.listdir("/")
    except PermissionError:
        return f"the root directory is refused (rights of ABI {abi})"
    raise RuntimeError("the root directory could be read")


def _not_dumpable() -> str:
    # Capabilities would forbid the reading too, or allow it in spite of everything.
    capabilities.drop_all()
    process.set_dumpable(False)
    mine = f"/proc/{os.getpid()}/environ"
    reader = os.fork()
    if reader == 0:
        try:
            os.close(os.open(mine, os.O_RDONLY))
        except PermissionError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(reader, 0)
    _expect(status == 0, "another process of the same user could read it")
    return "no process of the same user can read it"


def _rlimits() -> str:
    resource_limits.apply_limits(ResourceLimits())
    _expect(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), "core dumps could not be forbidden")
    try:
        opened = [os.dup(0) for _ in range(policy.OPEN_DESCRIPTORS)]
    except OSError:
        return f"no descriptor beyond {policy.OPEN_DESCRIPTORS - 1} can be opened"
    raise RuntimeError(f"{len(opened)} descriptors could be opened")


def _seccomp() -> str:
    program = seccomp.compile_filter(architecture=host_architecture(), pid=os.getpid())
    pid = os.fork()
    if pid == 0:
        process.set_dumpable(False)
        process.set_no_new_privileges()
        try:
            seccomp.load_filter(program)
        except OSError:
            os._exit(1)
        os.getppid()
        os._exit(2)
    _, status = os.waitpid(pid, 0)
    ending = os.waitstatus_to_exitcode(status)
    _expect(ending != 1, "the kernel does not take the filter")
    _expect(ending == -signal.SIGSYS, f"a forbidden call ended with status {ending}")
    return "a forbidden system call is the end of the process"


_ATTEMPTS: Final[Mapping[Layer, Callable[[], str]]] = {
    Layer.UNPRIVILEGED_UID: _unprivileged_uid,
    Layer.USER_NAMESPACE: _user_namespace,
    Layer.MOUNT_NAMESPACE: _mount_namespace,
    Layer.EMPTY_ROOT: _empty_root,
    Layer.PID_NAMESPACE: _pid_namespace,
    Layer.NETWORK_NAMESPACE: _network_namespace,
    Layer.IPC_NAMESPACE: _ipc_namespace,
    Layer.UTS_NAMESPACE: _uts_namespace,
    Layer.CGROUP_NAMESPACE: _cgroup_namespace,
    Layer.CAPABILITIES: _capabilities,
    Layer.NO_NEW_PRIVILEGES: _no_new_privileges,
    Layer.LANDLOCK: _landlock,
    Layer.NOT_DUMPABLE: _not_dumpable,
    Layer.RLIMITS: _rlimits,
    Layer.SECCOMP: _seccomp,
}


def _cgroup_findings() -> dict[Layer, Finding]:
    """Make a tree with a limited group, and take it away again."""
    refused = {
        layer: Finding(False, "no cgroup here can be written to", REMEDIES[layer])
        for layer in CGROUP_LAYERS
    }
    tree = cgroup.discover()
    if tree is None:
        return refused
    with tree:
        try:
            tree.create("probe", cgroup.GroupLimits(memory_bytes=1 << 26, pids=2, cpu_percent=50))
        except OSError as error:
            return {layer: Finding(False, str(error), REMEDIES[layer]) for layer in CGROUP_LAYERS}
        detail = f"a limit could be set (cgroup version {tree.version})"
        return refused | {layer: Finding(True, detail, "") for layer in tree.layers}


def main(arguments: list[str]) -> int:
    """Print the findings, as JSON with `--json`; the status is 1 when the minimum is missing."""
    findings = probe_here()
    if arguments == ["--json"]:
        print(json.dumps({layer: asdict(finding) for layer, finding in findings.items()}))
        return 0
    for layer, finding in findings.items():
        print(f"{'yes' if finding.available else 'no ':3} {layer}: {finding.detail}")
        if finding.remedy:
            print(f"      {finding.remedy}")
    return 1 if missing_minimum(findings) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
