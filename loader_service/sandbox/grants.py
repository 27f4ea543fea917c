"""What a device needs beyond what every worker has: values of the operator's policy.

A worker without a device, or with one that needs nothing, has exactly the sandbox of always. The
standard library only: the broker, the worker and the sandbox share these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self


@dataclass(frozen=True, slots=True)
class Grants:
    """What is opened for the workers of one device, and only for them."""

    device_nodes: tuple[str, ...] = ()
    """Absolute paths of device nodes, which the worker's otherwise empty root has, too."""
    system_calls: tuple[str, ...] = ()
    """Names of rules that are added to the system-call table; what each opens, and why, is said
    where the sandbox defines it."""
    file: str = ""
    """The name of one file in the worker's otherwise empty root: in memory, written by the worker
    through a descriptor from its birth and opened by name for reading only. For libraries that
    read nothing but files."""
    empty_files: tuple[str, ...] = ()
    """Absolute paths under which the root has empty files: they stand for libraries that are loaded
    already, and that the device looks for again."""
    tasks: int = 0
    """Threads that the device starts beside those of the interpreters."""
    afresh: bool = False
    """Whether it starts some of them when it is loaded: its workers are then executed afresh, not
    forked."""

    @property
    def nothing(self) -> bool:
        """Whether a plain worker will do."""
        return self == NOTHING

    def __or__(self, other: Grants) -> Grants:
        """What a worker needs that has both devices."""

        def both(one: tuple[str, ...], two: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys((*one, *two)))

        return Grants(
            both(self.device_nodes, other.device_nodes),
            both(self.system_calls, other.system_calls),
            self.file or other.file,
            both(self.empty_files, other.empty_files),
            self.tasks + other.tasks,
            self.afresh or other.afresh,
        )

    def sentences(self) -> tuple[str, ...]:
        """Say what is granted; nothing for what a plain worker has, too."""
        said = []
        if self.device_nodes:
            said.append(f"opens {', '.join(self.device_nodes)}")
        if self.system_calls:
            said.append(f"system calls: {', '.join(self.system_calls)}")
        if self.file:
            said.append(f"one file in memory, {self.file}")
        if self.empty_files:
            said.append(f"files with nothing in them, {', '.join(self.empty_files)}")
        if self.tasks:
            said.append(f"{self.tasks} more threads")
        if self.afresh:
            said.append("a process executed afresh")
        return tuple(said)

    def to_fields(self) -> dict[str, object]:
        """Return the grants as a JSON object."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read what `to_fields` wrote."""
        return cls(
            tuple(fields["device_nodes"]),
            tuple(fields["system_calls"]),
            fields["file"],
            tuple(fields["empty_files"]),
            fields["tasks"],
            fields["afresh"],
        )


NOTHING: Final = Grants()
"""What plain workers are granted."""
