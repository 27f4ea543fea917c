"""Section 4: many calls at a time, from one client, many clients, many models, two origins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import cases
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.plan import Plan, pairs_of
from model_loader_cli.bench.comparison import AGAIN
from model_loader_cli.bench.interval import Interval, NothingLeft
from model_loader_cli.bench.processes import Arm
from model_loader_cli.bench.samples import alone, combined, medians

TITLE = "Throughput"
PIPELINING_PROGRAM = "benchmarks.programs.pipelining"
CROWDS_PROGRAM = "benchmarks.programs.crowds"
LOOP, CLIENT = "one after the other", "one client"
SEQUENCE, PIPELINING = "sequence", "pipelining"
CROWD_HERE, CROWD = "crowd in process", "crowd"
BESIDE_HERE, BESIDE, BESIDE_RELAYED = "neighbours in process", "neighbours", "neighbours relayed"
PARTS: Mapping[str, tuple[str, ...]] = {
    "pipelining": (LOOP, LOOP + AGAIN, CLIENT, SEQUENCE, PIPELINING),
    "crowd": (CROWD_HERE, CROWD_HERE + AGAIN, CROWD),
    "fairness": (BESIDE_HERE, BESIDE_HERE + AGAIN, BESIDE, BESIDE_RELAYED),
}
CALLS = "calls"
Pairs = Sequence[Mapping[str, Any]]


def judged(part: str) -> bool:
    """Whether a target is set for a part."""
    return part == "pipelining"


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts."""
    return sum(len(arms) * pairs_of(pairs, judged(part)) for part, arms in PARTS.items())


def run(plan: Plan) -> dict[str, Any]:
    """Measure every part; returns the raw samples."""
    result = {}
    for part, arms in PARTS.items():
        alone_here = part == "pipelining"
        model = cases.PIPELINED if alone_here else cases.CROWD
        blocks = cases.PIPELINE_BLOCKS if alone_here else cases.THROUGHPUT_BLOCKS
        given = {
            "model": str(plan.store.path(model)),
            "inputs": str(plan.store.inputs(model)),
            "threads": cases.PIPELINE_THREADS if alone_here else 1,
            "depth": cases.PIPELINE_DEPTH,
            "crowds": list(cases.CROWDS[:2] if plan.quick else cases.CROWDS),
            "clients": cases.SHARED_CLIENTS,
            "neighbours": list(cases.NEIGHBOURS),
            "seconds": cases.BLOCK_SECONDS / plan.share,
            "blocks": max(2, blocks // plan.share),
        }
        program = PIPELINING_PROGRAM if alone_here else CROWDS_PROGRAM
        processes = {arm: Arm(program, {"arm": arm.removesuffix(AGAIN), **given}) for arm in arms}
        result[part] = {
            "model": model,
            "pairs": plan.run(f"{TITLE}: {part}", processes, judged(part)),
        }
    return result


def share(pairs: Pairs, arm: str, base: str, condition: str) -> Interval:
    """Calls a second, in percent of the base's."""
    return combined(
        lambda ours, theirs: 100 * theirs / ours,
        medians(pairs, arm, condition),
        medians(pairs, base, condition),
    )


def calls_a_second(pairs: Pairs, arm: str, condition: str) -> Interval:
    """The rate itself."""
    return combined(lambda each: 1000 / each, medians(pairs, arm, condition))


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that targets are set for, unless no block was quiet."""
    pairs = samples["pipelining"]["pairs"]
    result = {}
    for arm in (SEQUENCE, PIPELINING):
        try:
            result[f"{arm}: share of in process"] = Figure(
                share(pairs, arm, LOOP, CALLS), share(pairs, LOOP + AGAIN, LOOP, CALLS)
            )
        except NothingLeft:
            continue
    return result


def tables(samples: Mapping[str, Any]) -> str:
    """All tables of the section."""
    pipelining, crowd, fairness = (samples[part] for part in PARTS)
    heads = ["calls a second", "% of in process", "A/A %"]
    return (
        f"One client, {pipelining['model']}, {cases.PIPELINE_THREADS} threads a computation.\n\n"
        + table(
            ["client", *heads],
            (
                [text, *_rates(pipelining["pairs"], arm, LOOP, CALLS)]
                for arm, text in (
                    (LOOP, "in process, one call after the other"),
                    (CLIENT, "the service, one call after the other"),
                    (SEQUENCE, "the service, the next on its way (`compute_many`)"),
                    (PIPELINING, f"the service, {cases.PIPELINE_DEPTH} calls under way (asyncio)"),
                )
            ),
        )
        + f"\nMany models and many clients, {crowd['model']}, one thread a computation; in "
        "process as many threads, each with an interpreter of its own.\n\n"
        + table(
            ["callers", "in process, calls a second", *heads],
            (
                [
                    condition,
                    _rates(crowd["pairs"], CROWD_HERE, CROWD_HERE, condition)[0],
                    *_rates(crowd["pairs"], CROWD, CROWD_HERE, condition),
                ]
                for condition in crowd["pairs"][0][CROWD]["blocks"]
            ),
        )
        + f"\nFairness: one caller of {fairness['model']}, back to back, beside busy models of "
        "another origin; milliseconds a call. With more callers than cores each gets a share of "
        "them: in process shows what a fair share is.\n\n"
        + table(["busy models beside", "in process", "A/A", "direct", "relayed"], _fair(fairness))
    )


def _rates(pairs: Pairs, arm: str, base: str, condition: str) -> list[str]:
    try:
        cells = [shown(calls_a_second(pairs, arm, condition), 1)]
        if arm == base:
            return [*cells, "–", "–"]
        cells.append(shown(share(pairs, arm, base, condition), 1))
        return [*cells, shown(share(pairs, base + AGAIN, base, condition), 1)]
    except NothingLeft:
        return ["no quiet block", "–", "–"]


def _fair(entry: Mapping[str, Any]) -> Iterator[list[str]]:
    pairs = entry["pairs"]
    for condition in pairs[0][BESIDE]["blocks"]:
        cells = []
        for arm in PARTS["fairness"]:
            try:
                cells.append(shown(alone(pairs, arm, condition), 2))
            except NothingLeft:
                cells.append("no quiet block")
        yield [condition.removeprefix("beside "), *cells]
