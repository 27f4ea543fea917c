"""One run: a service, a healthy model in it, and jobs that send it mutants, all of them watched."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import model_loader as ml
from tests.fuzz.campaign import numbered
from tests.fuzz.models.asking import MOST_CALLS, ask, look
from tests.fuzz.models.bystander import ORIGIN, Bystander
from tests.fuzz.models.footprint import at_rest, cgroup_folders, leaks, settled
from tests.fuzz.models.mutants import Maker, Mutant
from tests.fuzz.models.tally import Tally
from tests.fuzz.report import Progress
from tests.support.processes import children, describe, reap_ended, wait_until_empty

LIMITS = ml.Limits(
    memory_bytes=256 << 20,
    output_bytes=64 << 20,
    load_seconds=10,
    compute_seconds=1,
    # Not what is tried here: every mutant is another file, and there are many.
    loads_per_minute=10**9,
)
SLACK_SECONDS = 60.0
"""Beyond what a load and its computations may take: then it hangs. Wide, for a busy machine."""

ALLOWED_SECONDS = (LIMITS.load_seconds or 0) + MOST_CALLS * (LIMITS.compute_seconds or 0)

INSPECTED = 16
"""One mutant of so many is inspected, too."""

WARMING = 30
"""Mutants before the first footprint, so that whatever is made once is there."""

WATCH_SECONDS = 0.2
ENDING_SECONDS = 20.0


class Job:
    """One thread that sends mutants, under an origin of its own."""

    def __init__(self, number: int, connection: ml.Connection) -> None:
        self.connection = connection
        self.loader = ml.MLModelLoader(ml.create_context(connection=connection))
        self.name = f"fuzz-{number}"
        self.mutant: Mutant | None = None
        self.since = time.monotonic()
        """When the mutant under way was begun."""


class Campaign:
    """Mutants through the whole service; `run` fills the tally."""

    def __init__(self, maker: Maker, tally: Tally, *, runtime: str = "auto", jobs: int = 2) -> None:
        self.slack_seconds = SLACK_SECONDS
        self.interlude: Callable[[ml.Connection], None] = lambda connection: None
        """Called after the last mutant and before the last look at the service: for tests."""
        self._maker, self._tally, self._runtime, self._jobs = maker, tally, runtime, jobs
        self._stopped = threading.Event()
        self._turn = threading.Lock()
        self._ended = 0
        self._others: frozenset[int] = frozenset()

    def run(self, mutants: int, seconds: float | None = None) -> None:
        """Send that many mutants, or as many as the seconds allow."""
        started = time.monotonic()
        self._others = frozenset(children())
        with ml.embed(runtime=self._runtime, limits=LIMITS, origin=ORIGIN) as connection:
            broker = connection.broker_pid
            assert broker is not None
            with ExitStack() as stack:
                jobs = []
                for number in range(self._jobs):
                    own = ml.connect(connection.address, origin=f"fuzz-{number}")
                    jobs.append(Job(number, stack.enter_context(own)))
                bystander = Bystander(connection, self.slack_seconds)
                for number in range(-WARMING, 0):
                    ask(jobs[number % len(jobs)].loader, self._maker.mutant(number), 1)
                before = settled(broker)
                bystander.start()
                self._send(jobs, broker, bystander, mutants, seconds)
                self.interlude(connection)
                if alive(broker):
                    after = at_rest(broker, before)
                    for leak in leaks(before, after):
                        self._tally.find("leaks", leak)
                    self._tally.fact("KiB that the broker grew", after.resident - before.resident)
                elif not self._stopped.is_set():
                    self._tally.find("broker deaths", "the broker is dead")
                bystander.end()
        self._tally.table.seconds = time.monotonic() - started
        self._judge(bystander, broker)

    def _send(
        self,
        jobs: list[Job],
        broker: int,
        bystander: Bystander,
        mutants: int,
        seconds: float | None,
    ) -> None:
        """Run the jobs until there is nothing left to send, and watch them meanwhile."""
        numbers = numbered(mutants, seconds)
        threads = [
            threading.Thread(target=self._work, args=(job, numbers), name=job.name, daemon=True)
            for job in jobs
        ]
        progress = Progress(self._tally.table.name, mutants)
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not self._stopped.is_set():
            threads[0].join(WATCH_SECONDS)
            progress.say(self._ended, f"{bystander.asked:,} answers of the healthy model")
            self._watch(jobs, broker, bystander)
        for thread in threads:
            thread.join(ENDING_SECONDS)

    def _work(self, job: Job, numbers: Iterator[int]) -> None:
        while not self._stopped.is_set():
            with self._turn:
                number = next(numbers, None)
            if number is None:
                break
            mutant = self._maker.mutant(number)
            job.since, job.mutant = time.monotonic(), mutant
            outcome = ask(job.loader, mutant, LIMITS.compute_seconds or 1)
            if self._stopped.is_set():
                return
            self._tally.count(mutant, outcome)
            if number % INSPECTED == 0:
                job.since = time.monotonic()
                self._tally.inspected(mutant, look(job.connection, mutant))
            self._ended += 1
        job.mutant = None

    def _watch(self, jobs: list[Job], broker: int, bystander: Bystander) -> None:
        """Notice what does not end, and a broker that did."""
        if not alive(broker):
            under_way = [job.mutant.number for job in jobs if job.mutant is not None]
            self._stopped.set()
            self._tally.find("broker deaths", f"with the mutants {under_way}")
            return
        now = time.monotonic()
        hanging = [
            job
            for job in jobs
            if job.mutant is not None and now - job.since > ALLOWED_SECONDS + self.slack_seconds
        ]
        for job in hanging:
            assert job.mutant is not None
            self._tally.hang(job.mutant)
        if now - bystander.since > ALLOWED_SECONDS + self.slack_seconds and bystander.running:
            self._tally.find("hangs", "a call of the healthy model")
            hanging = jobs
        if hanging:
            # Nothing else ends the calls that hang.
            self._stopped.set()
            os.kill(broker, signal.SIGKILL)

    def _judge(self, bystander: Bystander, broker: int) -> None:
        """Note what the healthy model saw, and what outlived the service."""
        if not self._stopped.is_set():
            for wrong in bystander.wrong:
                self._tally.find("wrong answers of the healthy model", wrong)
        self._tally.fact("right answers of the healthy model", bystander.asked)
        self._tally.fact("milliseconds of its slowest answer", round(1000 * bystander.slowest))
        if left := wait_until_empty(self._left, ENDING_SECONDS):
            self._tally.find("leaks", f"processes after the end: {describe(left)}", len(left))
        for folder in cgroup_folders(broker):
            self._tally.find("leaks", f"a cgroup after the end: {folder.name}")

    def _left(self) -> list[int]:
        """What this process has for children now, and had not at the beginning."""
        reap_ended()
        return sorted(set(children()) - self._others)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
