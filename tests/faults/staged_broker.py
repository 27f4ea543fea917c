"""The real embedded broker, which stops at a stage when a test asks for it; so does its zygote.

    python -m tests.faults.staged_broker LIFE OPTIONS SETTINGS

as ``tests.support.broker_variant``; SETTINGS also names the ``stage_file`` (see ``stops``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from loader_service.broker import attach, load_gate, loading, relay, worker, zygote, zygote_process
from model_loader_wire.v1 import attach_pb2
from tests.faults.stops import Stops
from tests.support import broker_variant


def main(arguments: list[str]) -> int:
    """Run the broker until the life socket ends; returns its exit status."""
    life, options, settings = arguments
    changed = json.loads(settings)
    file = changed.pop("stage_file")
    stop_in_broker(Stops(Path(file)))
    bootstrap = zygote_process.BOOTSTRAP.replace(
        "from loader_service.worker.zygote import main",
        "from tests.faults.staged_broker import zygote_of\n"
        f"main = lambda arguments: zygote_of({file!r}, arguments)",
    )
    assert bootstrap != zygote_process.BOOTSTRAP
    setattr(zygote_process, "BOOTSTRAP", bootstrap)  # noqa: B010
    return broker_variant.main([life, options, json.dumps(changed)])


def stop_in_broker(stops: Stops) -> None:
    """Name the broker's stages, in the order of a load and of a relayed call."""
    stops.around(load_gate, "read_header", after="the header is read")
    stops.around(
        zygote.Zygote,
        "spawn",
        before="a worker is asked for",
        after="the broker knows of the worker",
    )
    stops.around(
        worker.Worker, "begin", before="the worker waits for GO", after="the worker is locked down"
    )
    count_pieces(stops)
    stops.around(
        worker.Worker, "end_model", before="the upload is complete", after="the worker opens it"
    )
    stops.around(loading, "read_description", after="the worker has loaded it")
    stop_at_attach(stops)
    stops.around(relay.Relay, "compute", before="a call is relayed")
    stops.around(worker.Worker, "end", before="a model is closed")
    stops.in_answers("half an answer is in the broker")


def count_pieces(stops: Stops) -> None:
    """Name the moment after each mebibyte of a model, wherever its bytes come from."""
    sent: WeakKeyDictionary[worker.Worker, int] = WeakKeyDictionary()
    for name in ("send_model", "send_held"):

        def counting(function: Any) -> Any:
            async def stopping(self: worker.Worker, *piece: Any) -> None:
                await function(self, *piece)
                sent[self] = sent.get(self, 0) + 1
                stops.reached(f"piece {sent[self]} is passed on")

            return stopping

        setattr(worker.Worker, name, counting(getattr(worker.Worker, name)))


def stop_at_attach(stops: Stops) -> None:
    """Name the requests on the attach socket."""
    answer: Any = attach.AttachServer._answer

    async def stopping(*args: Any) -> None:
        for request in args:
            if isinstance(request, attach_pb2.AttachRequest):
                channel = request.WhichOneof("request") == "receive_channel"
                stops.reached("the channel is asked for" if channel else "the model is offered")
        await answer(*args)

    setattr(attach.AttachServer, "_answer", stopping)  # noqa: B010


def zygote_of(file: str, arguments: list[str]) -> int:
    """Be a zygote that stops before and after its forks."""
    from loader_service.worker import zygote as real

    Stops(Path(file)).around(
        real, "spawn", before="the zygote was asked", after="the worker is forked"
    )
    return real.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
