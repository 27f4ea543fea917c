"""A client that forks: ``python -m tests.integration.forking_caller ADDRESS WHAT-THE-CHILD-DOES``.

It has a process of its own: gRPC starts its threads anew in a forked child, and those of a process
with many channels, as that of the tests is, may not live through it.
"""

from __future__ import annotations

import os
import sys

import numpy as np

import model_loader as ml
from loader_service.writer import small

X = np.array([1], np.float32)


def use_the_parents(model: ml.MLModel) -> bool:
    """Compute with a model of the parent's; returns whether that is refused."""
    try:
        model.compute(X)
    except ml.InvalidStateError:
        return True
    return False


def have_its_own(model: ml.MLModel) -> bool:
    """Start a service and compute there; returns whether the answer is right."""
    with ml.embed() as connection:
        own = ml.MLModelLoader(ml.create_context(connection=connection))
        return bool(own.load(small.add()).compute(X) == 2)


CHILDREN = {"use-the-parents": use_the_parents, "have-its-own": have_its_own}


def main(address: str, child_does: str) -> None:
    """Compute before and after the fork."""
    with ml.connect(address) as connection, ml.create_context(connection=connection) as context:
        model = ml.MLModelLoader(context).load(small.add())
        assert model.compute(X) == 2
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if CHILDREN[child_does](model) else 2
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"the child ended with {status}"
        assert model.compute(X) == 2


if __name__ == "__main__":
    main(*sys.argv[1:])
