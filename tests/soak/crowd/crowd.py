"""The crowd on its daemon: started, killed now and then, watched, and at the end counted."""

from __future__ import annotations

import json
import os
import queue
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_loader_wire.v1 import admin_pb2 as pb
from tests.faults.ground import trees_of
from tests.shared_models import REPOSITORY
from tests.soak.crowd.record import Record
from tests.soak.crowd.watch import Events, health_of, metrics
from tests.soak.service import Looked, check_end, health, traceback_in
from tests.support.daemon import Daemon
from tests.support.processes import children
from tests.support.raw_client import HANG_SECONDS, RawSession

USERS = (0, 54341, 54342)
"""Root and two users of no name, where root runs this."""
LOOK_SECONDS = 10.0
END_SECONDS = 120.0
"""Longest wait for every program to come to its end."""
WORKERS_OF_KILLED = 0.7
"""How many of the killed are workers; the others are programs."""
CONFIGURATION = """
[service]
users = {users}
metrics = true
spare_seconds = 5
[limits]
processes = 1000
models_per_origin = 8
"""


class CrowdDaemon(Daemon, Looked):
    """The daemon of the crowd."""


@dataclass
class Result:
    """What happened, and what was wrong with it."""

    clients: int
    seconds: float
    started: int = 0
    killed_workers: int = 0
    killed_programs: int = 0
    ordered: int = 0
    """Programs that were to be killed; some have ended just before."""
    health_asked: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    looks: list[dict[str, int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass
class Crowd:
    """One run."""

    folder: Path
    clients: int
    kill_seconds: float
    """Mean time between two kills."""
    seed: int
    result: Result = field(init=False)
    killed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Models whose worker was killed: the user and the process."""
    _unasked: list[str] = field(default_factory=list)
    """Of those, the ones whose health was not asked for yet."""
    _living: dict[int, bool] = field(default_factory=dict)
    """Programs that live, and whether each was ordered to be killed."""
    _dead: dict[int, int] = field(default_factory=dict)
    """Programs that have ended, and their statuses."""

    def run(self, seconds: float) -> Result:
        """Go on for so long, and compare everything with everything."""
        self.result = Result(self.clients, seconds)
        self._random = random.Random(self.seed)
        uids = USERS if os.geteuid() == 0 else (os.geteuid(),)
        path = self.folder / "record"
        self._record = Record(path, make=True)
        path.chmod(0o666)
        file = self.folder / "config.toml"
        file.write_text(CONFIGURATION.format(users=list(uids)), encoding="utf-8")
        daemon = CrowdDaemon(config=file, spare_seconds=5)
        try:
            events = Events(daemon.directory)
            try:
                # What every user's server takes is there before.
                with RawSession(daemon.directory, "first"):
                    pass
                daemon.wait_for_workers([])
                before = daemon.look()
                self._run_programs(daemon, events, path, uids, seconds)
                self.result.faults += check_end(daemon, before)
                self._settle(daemon, events)
                self.result.looks += [before, daemon.look()]
                self._compare(events, metrics(daemon.directory))
            finally:
                events.close()
        finally:
            self._end(daemon)
        return self.result

    def _run_programs(
        self, daemon: CrowdDaemon, events: Events, path: Path, uids: tuple[int, ...], seconds: float
    ) -> None:
        with (
            (self.folder / "said").open("w+b") as said,
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.soak.crowd.nursery"),
                    *(str(daemon.directory), str(path)),
                ],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            ) as nursery,
        ):
            try:
                self._watch(daemon, events, nursery, uids, seconds)
            finally:
                nursery.stdin.close()  # type: ignore[union-attr]
                nursery.wait(END_SECONDS)
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").splitlines()
            self.result.faults += [line for line in lines if not line.startswith("INFO:")][:50]

    def _watch(
        self,
        daemon: CrowdDaemon,
        events: Events,
        nursery: subprocess.Popen[bytes],
        uids: tuple[int, ...],
        seconds: float,
    ) -> None:
        """Keep the crowd going, kill, and look; then have all come to their end."""
        assert nursery.stdout is not None
        assert nursery.stdin is not None
        assert nursery.stdout.readline() == b"ready\n"
        said: queue.Queue[list[int]] = queue.Queue()

        def listen() -> None:
            for line in nursery.stdout or ():
                said.put(json.loads(line))

        threading.Thread(target=listen, daemon=True).start()

        def order(**what: Any) -> None:
            assert nursery.stdin is not None
            nursery.stdin.write(json.dumps(what).encode() + b"\n")
            nursery.stdin.flush()

        began = looked = time.monotonic()
        kills = began + self.kill_seconds
        stops = began + seconds + 2 * END_SECONDS
        while True:
            now = time.monotonic()
            self._note_the_dead(said)
            # Until there was one kill of each, however short it is.
            short = not (self.result.killed_workers and self.result.killed_programs)
            if now < began + seconds or (short and now < began + seconds + END_SECONDS):
                while len(self._living) < self.clients:
                    number = self.result.started
                    self.result.started += 1
                    self._living[number] = False
                    uid = uids[number % len(uids)]
                    order(start=number, uid=uid, relayed=bool(self._random.getrandbits(1)))
                if now >= kills:
                    kills = now + self._random.uniform(0, 2 * self.kill_seconds)
                    self._kill(daemon, events, order)
            else:
                self._record.stop()
                if not self._living or now > stops:
                    break
            self._ask_for_health(daemon, events)
            if now >= looked + LOOK_SECONDS:
                looked = now
                self._look(daemon, events, now - began)
            if daemon.died():
                self.result.faults.append("the daemon died")
                break
            time.sleep(0.02)
        self.result.faults += [f"program {number} does not end" for number in self._living]

    def _note_the_dead(self, said: queue.Queue[list[int]]) -> None:
        while not said.empty():
            number, status = said.get()
            ordered = self._living.pop(number)
            self._dead[number] = status
            if status != 0 and not (ordered and status == -signal.SIGKILL):
                self.result.faults.append(f"program {number} ended with status {status}")
            self.result.killed_programs += status == -signal.SIGKILL

    def _kill(self, daemon: CrowdDaemon, events: Events, order: Any) -> None:
        """Kill a program, or a worker that serves."""
        result = self.result
        # The first kills are one of each, however short the run is.
        first = {(0, 0): 0.0, (1, 0): 1.0}.get((result.killed_workers, result.ordered))
        turn = self._random.random() if first is None else first
        if turn >= WORKERS_OF_KILLED:
            chosen = [number for number, ordered in self._living.items() if not ordered]
            if chosen:
                number = self._random.choice(chosen)
                self._living[number] = True
                result.ordered += 1
                order(kill=number)
            return
        rows = events.admin.List(pb.ListRequest(), timeout=HANG_SECONDS).rows
        rows = [row for row in rows if row.model.model_id not in self.killed]
        if not rows:
            return
        row = self._random.choice(rows)
        pid = row.model.worker_pid
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # A child of the daemon: no other process can have got its number meanwhile.
            if pid in children(daemon.pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                self.killed[row.model.model_id] = (row.user, pid)
                self._unasked.append(row.model.model_id)
                result.killed_workers += 1
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    def _ask_for_health(self, daemon: CrowdDaemon, events: Events) -> None:
        """Whoever was killed is not healthy, once the daemon has told of it."""
        for model_id in [name for name in self._unasked if name in events.ends]:
            self._unasked.remove(model_id)
            said = health_of(daemon.directory, self.killed[model_id][0], f"model/{model_id}")
            self.result.health_asked += 1
            # A session that is over is not told about any more.
            if said not in ("NOT_SERVING", "NOT_FOUND"):
                self.result.faults.append(f"the health of a killed model is {said}")

    def _look(self, daemon: CrowdDaemon, events: Events, seconds: float) -> None:
        """Look at the service, and at the health of a model that lives."""
        self.result.looks.append(daemon.look())
        if not health(daemon):
            self.result.faults.append("the service's health is not SERVING")
        rows = events.admin.List(pb.ListRequest(), timeout=HANG_SECONDS).rows
        if rows:
            row = self._random.choice(rows)
            name = row.model.model_id
            said = health_of(daemon.directory, row.user, f"model/{name}")
            self.result.health_asked += 1
            if said != "SERVING" and name not in self.killed:
                # It may have been closed since; that is told, sooner or later.
                ends = time.monotonic() + HANG_SECONDS
                while name not in events.ends and time.monotonic() < ends:
                    time.sleep(0.02)
                if name not in events.ends:
                    self.result.faults.append(f"the health of a model that lives is {said}")
        print(
            f"{seconds:6.0f} s  {len(rows)} models, {self._record.total('calls')} calls, "
            f"{self.result.looks[-1]}",
            flush=True,
        )

    def _settle(self, daemon: CrowdDaemon, events: Events) -> None:
        """Wait until all that has happened was told."""
        ends = time.monotonic() + HANG_SECONDS
        while time.monotonic() < ends:
            seen = events.seen
            living = metrics(daemon.directory)
            select.select([], [], [], 0.2)
            settled = not any(living[key] for key in living if key[0] in ("sessions", "models"))
            if settled and events.seen == seen:
                return
        self.result.faults.append("sessions or models are still counted at the end")

    def _compare(self, events: Events, served: dict[tuple[str, ...], float]) -> None:
        """Hold what was done, what was told and what was counted against each other."""
        from tests.soak.crowd.compare import compare

        result = self.result
        result.faults += compare(self._record, self._dead, self.killed, events, served)
        result.counts = {name: self._record.total(name) for name in self._record.lives.dtype.names}
        result.metrics = {" ".join(key): value for key, value in sorted(served.items())}

    def _end(self, daemon: CrowdDaemon) -> None:
        status = daemon.close()
        log = daemon.log()
        if status != 0:
            self.result.faults.append(f"the daemon ended with status {status}: {log[-2000:]}")
        self.result.faults += [
            f"the daemon's log holds a traceback: {found}" for found in traceback_in(log)
        ]
        if daemon.directory.exists() or trees_of(daemon.pid):
            self.result.faults.append("files or cgroups are left")


def run(clients: int, seconds: float, kill_seconds: float, seed: int) -> Result:
    """Run a crowd in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="crowd-") as folder:
        Path(folder).chmod(0o755)
        return Crowd(Path(folder), clients, kill_seconds, seed).run(seconds)
