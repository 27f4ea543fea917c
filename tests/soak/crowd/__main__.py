"""Many programs on one daemon, with random kills of workers and of programs.

    python -m tests.soak.crowd [--seconds 600] [--clients 50] [--seed 1] [--json FILE]

Each program holds four models, on the direct or the relayed road, and compares every answer. As
root the programs are root's and those of two other users. Exits with status 1 if an answer was
wrong, a program met any error but the loss of a model that was killed, anything is left behind, or
health, events and metrics do not agree with what happened.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.soak.crowd.crowd import Result, run

SHOWN = (
    ("loads that programs made", "loads", "loads_total ready load"),
    ("losses that programs were told of", "losses", "models_lost_total killed"),
    ("models that programs closed", "closes", "models_closed_total"),
    ("programs that had a session", "connected", "sessions_opened_total"),
)


def main(arguments: list[str]) -> int:
    """Run the crowd; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.crowd", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument("--clients", type=int, default=50, help="at a time (default: 50)")
    parser.add_argument(
        "--kill-seconds", type=float, default=0.5, help="mean time between two kills (default: 0.5)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default: 1)")
    parser.add_argument("--json", help="a file for the figures")
    given = parser.parse_args(arguments)
    result = run(given.clients, given.seconds, given.kill_seconds, given.seed)
    show(result)
    if given.json:
        Path(given.json).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return 1 if result.faults else 0


def show(result: Result) -> None:
    """Print the figures."""
    counts, served = result.counts, result.metrics
    print(
        f"\n{result.clients} programs at a time for {result.seconds:.0f} s: {result.started} "
        f"started, {result.killed_programs} killed; {result.killed_workers} workers killed; "
        f"health asked for {result.health_asked} times"
    )
    print(f"\n{'':36}{'programs':>12}{'metrics':>12}")
    for text, own, metric in SHOWN:
        print(f"{text:36}{counts.get(own, 0):12,}{served.get(metric, 0):12,.0f}")
    reported = sum(value for key, value in served.items() if key.startswith("reported_calls_total"))
    relayed = served.get("relayed_calls_total ready", 0)
    print(f"{'calls that were answered':36}{counts.get('calls', 0):12,}")
    print(f"{'of those, reported by workers':36}{'':12}{reported:12,.0f}")
    print(f"{'of those, relayed':36}{'':12}{relayed:12,.0f}")
    deaths = {
        key.rpartition(" ")[2]: int(value)
        for key, value in served.items()
        if key.startswith("worker_deaths_total")
    }
    print(f"\nworker deaths by cause: {deaths}")
    print(f"wrong answers: {counts.get('wrong', 0)}")
    if len(result.looks) >= 2:
        print("daemon before:", result.looks[-2])
        print("daemon after: ", result.looks[-1])
    print("\n".join(f"FAULT: {fault}" for fault in result.faults[:50]) or "no fault")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
