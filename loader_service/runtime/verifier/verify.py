"""The one entry of the verifier."""

from __future__ import annotations

from loader_service.runtime.verifier.calls import check_calls
from loader_service.runtime.verifier.edges import check_edges
from loader_service.runtime.verifier.graph import Model
from loader_service.runtime.verifier.operators import check_operators
from loader_service.runtime.verifier.policy import PROFILES
from loader_service.runtime.verifier.rules import check_rules
from loader_service.runtime.verifier.tensors import check_tensors


def verify(model: bytes, *, operators: str = "standard") -> None:
    """Check a model before a runtime sees a byte of it.

    `operators`: the name of a profile in `policy`. Raises InvalidModel for a file that breaks a
    rule, and UnsupportedModel for what the profile does not allow; both name the place.
    """
    read = Model(model)
    check_operators(read, PROFILES[operators])
    check_tensors(read)
    check_edges(read)
    check_calls(read)
    check_rules(read)
