"""The one entry of the verifier."""

from __future__ import annotations

from loader_service.runtime.verifier.calls import check_calls
from loader_service.runtime.verifier.edges import check_edges
from loader_service.runtime.verifier.graph import Model
from loader_service.runtime.verifier.memory import check_memory
from loader_service.runtime.verifier.operators import check_operators
from loader_service.runtime.verifier.policy import PROFILES
from loader_service.runtime.verifier.rules import check_rules
from loader_service.runtime.verifier.state import keeps_state
from loader_service.runtime.verifier.tensors import check_tensors


def verify(model: bytes, *, operators: str = "standard", memory_bytes: int | None = None) -> bool:
    """Check a model before a runtime sees a byte of it; returns whether it keeps state.

    `operators`: the name of a profile in `policy`; `memory_bytes`: the worker's limit, if there is
    one. Raises InvalidModel for a file that breaks a rule, UnsupportedModel for what the profile
    does not allow, LimitReached for tensors that the limit cannot hold; each names the place.
    """
    read = Model(model)
    check_operators(read, PROFILES[operators])
    check_tensors(read)
    check_edges(read)
    check_calls(read)
    check_rules(read)
    if memory_bytes is not None:
        check_memory(read, memory_bytes)
    return keeps_state(read)
