"""What the devices of a worker are granted, from its order to its namespaces."""

from __future__ import annotations

from typing import NamedTuple, Self

from loader_service.sandbox import lockdown
from loader_service.sandbox.empty_root import RootFile
from loader_service.sandbox.grants import NOTHING, Grants
from loader_service.worker.orders import Spawn


class Granted(NamedTuple):
    """The grants of an order, and the file among them."""

    grants: Grants
    file: RootFile | None

    @classmethod
    def of(cls, order: Spawn) -> Self:
        """Read what the broker wrote."""
        grants = NOTHING if order.grants is None else Grants.from_fields(order.grants)
        return cls(grants, RootFile(grants.file, order.file_bytes) if grants.file else None)

    def enter_namespaces(self, uid: int | None, *, loads_later: bool = False) -> lockdown.Outcome:
        """Enter every namespace that can be, with a root that has what is granted."""
        return lockdown.enter_namespaces(
            frozenset(lockdown.NAMESPACE_LAYERS),
            uid,
            self.file,
            self.grants.device_nodes,
            self.grants.empty_files,
            loads_later=loads_later,
        )
