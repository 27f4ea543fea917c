"""Which machine this is: what advice depends on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """Facts about this machine and this user."""

    system: str
    kernel: str
    machine: str
    python: str
    uid: int
    container: str
    """The kind of container this runs in, or "" outside one."""

    @property
    def is_linux(self) -> bool:
        """Whether models can be isolated here at all."""
        return self.system == "Linux"


def look_at_host(root: Path = Path("/")) -> Host:
    """Collect the facts; `root` is where the marks that containers leave are looked for."""
    return Host(
        system=platform.system(),
        kernel=platform.release(),
        machine=platform.machine(),
        python=platform.python_version(),
        uid=os.geteuid() if hasattr(os, "geteuid") else -1,
        container=container_kind(root, os.environ),
    )


def container_kind(root: Path, environment: os._Environ[str] | dict[str, str]) -> str:
    """Name the kind of container by the marks it leaves, or return ""."""
    if "KUBERNETES_SERVICE_HOST" in environment:
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    manager = root / "run/systemd/container"
    try:
        return environment.get("container", "") or manager.read_text().strip()
    except OSError:
        return ""


_DOCKER = (
    "start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined (or a "
    "seccomp profile of your own that allows unshare, mount, umount2, pivot_root and the landlock "
    "calls); each worker's own filter is stricter than the profile that this replaces"
)
CONTAINER_ADVICE = {
    "docker": _DOCKER,
    "podman": _DOCKER,
    "kubernetes": (
        "give the pod securityContext.seccompProfile.type: Unconfined and "
        "securityContext.appArmorProfile.type: Unconfined, or profiles that allow unshare, mount, "
        "umount2, pivot_root and the landlock calls"
    ),
}
"""By kind of container: what to change where it withholds layers that a process enters itself."""
OTHER_CONTAINER_ADVICE = "let it call unshare, mount, umount2, pivot_root and the landlock calls"


def container_advice(kind: str) -> str:
    """What to change about a container that withholds layers; "" outside one."""
    return CONTAINER_ADVICE.get(kind, OTHER_CONTAINER_ADVICE) if kind else ""
