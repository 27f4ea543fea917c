"""What the daemon says of itself: its events, its rows, its metrics and its health."""

from __future__ import annotations

import socket
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from model_loader_wire.v1 import admin_pb2 as pb
from model_loader_wire.v1 import admin_pb2_grpc as pb_grpc
from tests.support.raw_client import HANG_SECONDS

PREFIX = "model_loader_"
Series = tuple[str, ...]
"""A metric's name without the prefix, and the values of its labels by the labels' order."""
ENDS = ("model-closed", "model-lost")


class Events:
    """Follows every event, and counts them as the metrics should."""

    def __init__(self, directory: Path) -> None:
        """Follow from now on."""
        self.counted: Counter[Series] = Counter()
        self.of_origin: dict[str, Counter[str]] = defaultdict(Counter)
        """Kinds of events by the origin that they are about."""
        self.ends: dict[str, tuple[str, str]] = {}
        """How each model ended: the kind of the event and the cause ("" of one that was closed)."""
        self.deaths: dict[int, list[str]] = defaultdict(list)
        """The causes of the deaths of each process's number."""
        self.left_out = self.seen = 0
        self._channel = grpc.insecure_channel(f"unix:{directory / 'admin.sock'}")
        self.admin: Any = pb_grpc.AdminStub(self._channel)  # type: ignore[no-untyped-call]
        self._stream = self.admin.Events(pb.EventsRequest(follow=True, all=True))
        self._take(next(self._stream))  # what was kept comes first, and at once
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._stream.cancel()
        self._thread.join(HANG_SECONDS)
        self._channel.close()

    def _follow(self) -> None:
        with suppress(grpc.RpcError):
            for event in self._stream:
                self._take(event)

    def _take(self, event: pb.Event) -> None:
        self.seen += 1
        self.left_out += event.left_out
        facts = {fact.name: getattr(fact, fact.WhichOneof("value")) for fact in event.facts}
        kind, cause = event.kind, facts.get("cause", "")
        self.of_origin[facts.get("origin", "")][kind] += 1
        match kind:
            case "load-began":
                self.counted["loads_begun_total", facts["task"]] += 1
            case "load-ready":
                self.counted["loads_total", "ready", facts["task"]] += 1
                self.counted["model_bytes_total",] += facts["model_bytes"]
            case "load-failed":
                self.counted["loads_total", cause, facts["task"]] += 1
            case "model-closed":
                self.counted["models_closed_total",] += 1
            case "model-lost":
                self.counted["models_lost_total", cause] += 1
            case "worker-ended":
                self.counted["worker_deaths_total", cause] += 1
                self.deaths[facts["worker_pid"]].append(cause)
            case "session-opened":
                self.counted["sessions_opened_total",] += 1
            case "computed":
                self.counted["relayed_calls_total", "ready"] += 1
                self.counted["relayed_tensor_bytes_total", "in"] += facts["input_bytes"]
                self.counted["relayed_tensor_bytes_total", "out"] += facts["output_bytes"]
            case "call-refused" if facts["method"] == "Compute":
                self.counted["relayed_calls_total", cause] += 1
        if kind in ENDS:
            self.ends[facts["model_id"]] = (kind, cause)


def metrics(directory: Path) -> dict[Series, float]:
    """Read every series from the daemon's socket."""
    data = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.connect(str(directory / "metrics.sock"))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        while piece := connection.recv(1 << 16):
            data += piece
    text = data.partition(b"\r\n\r\n")[2].decode()
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return {(item.name.removeprefix(PREFIX), *_values(item.labels)): item.value for item in samples}


def _values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels)]


def health_of(directory: Path, uid: int, name: str) -> str:
    """Ask a user's health service for a name: ``SERVING``, ``NOT_SERVING`` or ``NOT_FOUND``."""
    with grpc.insecure_channel(f"unix:{directory / f'uid-{uid}' / 'grpc.sock'}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            status = stub.Check(request, timeout=HANG_SECONDS).status
        except grpc.RpcError as error:
            failed: Any = error
            if failed.code() is grpc.StatusCode.NOT_FOUND:
                return "NOT_FOUND"
            raise
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
