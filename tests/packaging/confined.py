"""Runs a command as the unit would have it run, on a machine where systemd does not run.

    python -m tests.packaging.confined UNIT_FILE [DROP_IN ...] -- COMMAND ...

For root. What it does of the unit's settings: the account with its groups, capabilities, no new
privileges, the umask, a read-only file system, no network, and the filter of system calls, for
which systemd has one for each of several settings. It does not do cgroups, and what is hidden of
/dev, /proc and /home.
"""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path

from loader_service.sandbox import libc, process, seccomp
from loader_service.sandbox.policy import INT, Allow, Case, Condition, Fail, Rule
from loader_service.sandbox.syscall_tables import host_architecture
from tests.packaging.unit import Unit

PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
LAST_CAPABILITY = 40
CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
CLONE_NEWTIME = 0x80
PROT_WRITE, PROT_EXEC, SHM_EXEC = 0x2, 0x4, 0o100000
SUID_SGID = (0o4000, 0o2000)
PER_LINUX, ASK_PERSONALITY = 0, 0xFFFF_FFFF
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
KEPT = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""Those capabilities that a drop-in of ours names; capability.h has their numbers."""

REFUSED = Fail(errno.EPERM)


def rules(unit: Unit) -> tuple[Rule, ...]:
    """Return what happens to each system call that the machine has."""
    allowed = unit.system_calls()
    found = {
        name: Rule(name, Allow() if name in allowed else REFUSED, "")
        for name in host_architecture().numbers
    }

    def refuse(name: str, argument: int, bits: int, error: int = errno.EPERM) -> None:
        case = Case((Condition(argument, INT & bits, bits),), Fail(error))
        rule = found[name]
        found[name] = Rule(name, rule.otherwise, "", (*rule.cases, case))

    if unit.yes("MemoryDenyWriteExecute"):
        refuse("mmap", 2, PROT_WRITE | PROT_EXEC)
        for name in ("mprotect", "pkey_mprotect"):
            refuse(name, 2, PROT_EXEC)
        refuse("shmat", 2, SHM_EXEC)
    if unit.yes("RestrictSUIDSGID"):
        for bit in SUID_SGID:
            for name, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mknod", 1)):
                if name in found:
                    refuse(name, argument, bit)
    if unit.yes("LockPersonality"):
        kept = tuple(
            Case((Condition(0, INT, value),), Allow()) for value in (PER_LINUX, ASK_PERSONALITY)
        )
        found["personality"] = Rule("personality", REFUSED, "", kept)
    if "time" not in unit.words("RestrictNamespaces"):
        refuse("unshare", 0, CLONE_NEWTIME)
    families = tuple(
        Case((Condition(0, INT, FAMILIES[name]),), Allow())
        for name in unit.words("RestrictAddressFamilies")
    )
    found["socket"] = Rule("socket", Fail(errno.EAFNOSUPPORT), "", families)
    return tuple(found.values())


def confine(unit: Unit) -> None:
    """Take from this process what the unit takes; raises OSError."""
    account = pwd.getpwnam(unit.last("User"))
    writable = Path("/run") / unit.last("RuntimeDirectory")
    writable.mkdir(exist_ok=True)
    writable.chmod(int(unit.last("RuntimeDirectoryMode"), 8))
    os.chown(writable, account.pw_uid, account.pw_gid)
    if unit.last("ProtectSystem") == "strict":
        libc.syscall("unshare", CLONE_NEWNS)
        for command in (
            ["--make-rprivate", "/"],
            ["--bind", writable, writable],
            ["-o", "remount,bind,ro", "/"],
        ):
            subprocess.run(["mount", *command], check=True)
    if unit.yes("PrivateNetwork"):
        libc.syscall("unshare", CLONE_NEWNET)
    os.umask(int(unit.last("UMask"), 8))
    program = seccomp.compile_filter(rules(unit), architecture=host_architecture(), pid=os.getpid())
    kept = {KEPT[name] for name in unit.words("CapabilityBoundingSet")}
    for capability in range(LAST_CAPABILITY + 1):
        if capability not in kept:
            libc.syscall("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if unit.yes("NoNewPrivileges"):
        process.set_no_new_privileges()
    seccomp.load_filter(program)


def main(arguments: list[str]) -> None:
    """Become the command."""
    cut = arguments.index("--")
    unit = Unit.read(*map(Path, arguments[:cut]))
    command = arguments[cut + 1 :]
    os.chdir("/")
    confine(unit)
    os.execve(command[0], command, {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


if __name__ == "__main__":
    main(sys.argv[1:])
