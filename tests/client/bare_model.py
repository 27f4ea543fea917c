"""A model on a bare socket pair, without any service: for what concerns the channel alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import model_loader as ml
from model_loader._blocking import BlockingDriver
from model_loader._blocking_channel import BlockingChannel
from model_loader._model_core import ModelCore
from model_loader._session import Session
from model_loader._values import Isolation, Report
from model_loader_wire.description import ModelDescription, SignatureDescription
from model_loader_wire.limits import DEFAULT_LIMITS
from model_loader_wire.v1 import model_loader_pb2 as pb
from tests.shared_models import REPOSITORY


def bare_model(channel: socket.socket, signatures: list[SignatureDescription]) -> ml.MLModel:
    """Make a model object whose worker is at the other end of the socket."""
    session = Session(pb.Session(token=b"none"), "unix:/nowhere", None, None)
    session.attach = object()  # type: ignore[assignment]  # "not relayed"; never used
    report = Report("none", "builtin", "", 1, "0" * 64, 1, 0.0, DEFAULT_LIMITS)
    description = ModelDescription(tuple(signatures), "none", "builtin")
    core = ModelCore(session, "bare", description, Isolation(()), report, "bare")
    core.channel = BlockingChannel(channel)
    return ml.MLModel(BlockingDriver(), core)


@contextmanager
def echoing_process(signatures: list[SignatureDescription]) -> Iterator[ml.MLModel]:
    """Give a model whose worker is a process that answers with its inputs."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.client.workers", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
        )
    try:
        yield bare_model(ours, signatures)
    finally:
        ours.close()
        process.wait(10)
