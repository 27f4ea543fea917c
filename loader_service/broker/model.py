"""A loaded model, as the broker knows it."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, field, replace

from loader_service.broker.parkable import Home
from loader_service.broker.refusal import Refusal, refuse
from loader_service.broker.relay import Relay
from loader_service.worker.control import BadMessage, unpack_fields
from model_loader_wire.causes import Cause, Failure
from model_loader_wire.delegation import BadDelegation, Delegation, delegation_from_values
from model_loader_wire.description import ModelDescription
from model_loader_wire.limits import Limits


def new_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(12)


@dataclass(slots=True, kw_only=True, eq=False)
class Model:
    """One model in one worker."""

    worker: Home
    description: ModelDescription
    limits: Limits
    sha256: bytes
    label: str
    origin: str
    relay: Relay | None = None
    coarse: bool = False
    """Whether its caller is told types of devices only."""
    model_id: str = field(default_factory=new_id)
    loaded_at: float = field(default_factory=time.monotonic)

    @property
    def lost(self) -> Failure | None:
        """Why the model is gone (closed ones too), or None."""
        return self.worker.lost

    def delegation(self) -> Delegation | None:
        """Return what the worker last said of its devices; raises Refusal for what cannot be."""
        said = self.description.delegation
        if self.worker.reported:
            try:
                said = delegation_from_values(unpack_fields(self.worker.reported))
            except (BadMessage, BadDelegation) as error:
                reason = Failure(Cause.PROTOCOL_VIOLATION, f"a report on devices: {error}")
                self.worker.kill(reason)
                raise Refusal(reason) from None
        return said.coarsened() if said is not None and self.coarse else said

    def declaration(self) -> ModelDescription:
        """Return what its caller is told: of a coarse one not what the CPU's kernels are left."""
        return replace(self.description, kernels="", note="") if self.coarse else self.description

    def require_living(self) -> None:
        """Raise Refusal if the model was closed or lost before."""
        if self.lost is None:
            return
        if self.lost.cause is Cause.CLOSED:
            raise refuse(Cause.CLOSED, self.lost.message)
        raise refuse(Cause.LOST, f"the model was lost: {self.lost.message}")

    def take_channel(self) -> socket.socket:
        """Give away the client's end of the channel, once; raises Refusal after that."""
        if self.relay is not None:
            raise refuse(Cause.CLOSED, "this model was loaded to be relayed: it has no channel")
        if self.lost is not None:
            raise Refusal(self.lost)
        channel = self.worker.channel
        if channel is None:
            raise refuse(Cause.FORBIDDEN, "the channel of this model was already handed out")
        self.worker.channel = None
        return channel
