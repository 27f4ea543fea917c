"""Section 5, which is not run unless it is asked for: other servers, by the same method.

Each arm's process runs two models, one after the other: MobileNet, and one that has its tensors
and hardly any work, which shows the road alone. A peer's process starts the server, and ends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from benchmarks import cases
from benchmarks.figures import Figure, shown
from benchmarks.markdown import table
from benchmarks.models import FLOAT_BYTES, REPOSITORY
from benchmarks.peers.environment import Environment
from benchmarks.peers.peers import PEERS, Peer
from benchmarks.plan import Plan, pairs_of
from model_loader_cli.bench import processes
from model_loader_cli.bench.arms import Order
from model_loader_cli.bench.blocks import Condition
from model_loader_cli.bench.comparison import AGAIN, DIRECT, ECHO, IN_PROCESS, RELAYED
from model_loader_cli.bench.interval import NothingLeft
from model_loader_cli.bench.processes import Arm, ArmFailed
from model_loader_cli.bench.samples import added, alone

TITLE = "Peers"
OWN = (IN_PROCESS, IN_PROCESS + AGAIN, DIRECT, RELAYED, ECHO)
OWN_PROGRAM, PEER_PROGRAM = "benchmarks.programs.several", "benchmarks.programs.peer"
RUNTIME = "ai-edge-litert"
NOT_INSTALLED, NOT_RUNNING = "cannot be installed here", "does not run here"
OTHER_ANSWERS = "answers otherwise than in process"
TRIAL_CALLS = 2
TEXTS = {
    IN_PROCESS: "in process, the whole call",
    IN_PROCESS + AGAIN: "A/A: in process again",
    DIRECT: "this service, direct channel",
    RELAYED: "this service, relayed gRPC",
    ECHO: "bare echo of the same sizes",
}
Pairs = Sequence[Mapping[str, Any]]


def environment(peer: Peer) -> Environment:
    """Where a peer is installed, with the runtime that the service has in this Python."""
    requirements = [*peer.requirements, f"{RUNTIME}=={version(RUNTIME)}"]
    return Environment(REPOSITORY / peer.folder, requirements)


def runs(pairs: int, quick: bool) -> int:
    """How many processes a run starts, at most."""
    theirs = sum(len(peer.arms) for peer in PEERS)
    return (len(OWN) + theirs) * pairs_of(pairs, judged=False) + theirs + 1


def run(plan: Plan) -> dict[str, Any]:
    """Install what is missing, try every peer, and measure those that run.

    Returns the raw samples; `absent` says, by peer or arm, why it has none.
    """
    absent: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {}
    step = plan.reporter.part(f"{TITLE}: installation and trial")

    def leave_out(name: str, reason: str, words: str) -> None:
        absent[name] = reason
        plan.failed[f"{TITLE}: {name}"] = f"{reason}: {words}"

    arms = {name: _own(name, plan) for name in OWN}
    step("in process, once")
    expected = run_arm(_own(IN_PROCESS, plan, TRIAL_CALLS))["answers"]
    for peer in PEERS:
        home = environment(peer)
        try:
            home.install()
        except ArmFailed as error:
            leave_out(peer.name, NOT_INSTALLED, str(error))
            continue
        versions[peer.name] = home.versions(peer.packages)
        python = str(home.python)
        for name in peer.arms:
            step(f"{name}, once")
            try:
                answers = run_arm(_theirs(name, python, plan, TRIAL_CALLS))["answers"]
            except ArmFailed as error:
                leave_out(name, NOT_RUNNING, str(error))
                continue
            if answers != expected:
                leave_out(name, OTHER_ANSWERS, "it is not compared")
                continue
            arms[name] = _theirs(name, python, plan)
    pairs = plan.run(TITLE, arms, judged=False)
    return {
        "models": list(cases.PEER_CALLS),
        "versions": versions,
        "absent": absent,
        "pairs": pairs,
    }


def run_arm(arm: Arm) -> Any:
    """Run one arm outside of any pair."""
    return processes.run(arm, REPOSITORY)


def _conditions(plan: Plan, position: int, calls: int | None) -> dict[str, Any]:
    return {
        model: Condition(
            name=model,
            calls=calls or max(TRIAL_CALLS, counts[position] // plan.share),
            blocks=1 if calls else max(2, cases.PEER_BLOCKS // plan.share),
        ).to_json()
        for model, counts in cases.PEER_CALLS.items()
    }


def _own(name: str, plan: Plan, calls: int | None = None) -> Arm:
    """One of the project's own arms; a trial makes so many calls."""
    store = plan.store
    orders = {
        model: asdict(
            Order(
                model=str(store.path(model)),
                inputs=str(store.inputs(model)),
                reply_bytes=store.sizes(model).reply,
            )
        )
        for model in cases.PEER_CALLS
    }
    given = {"arm": name.removesuffix(AGAIN), "orders": orders}
    return Arm(OWN_PROGRAM, given | {"conditions": _conditions(plan, 0, calls)})


def _theirs(name: str, python: str, plan: Plan, calls: int | None = None) -> Arm:
    """One of a peer's arms."""
    store = plan.store
    models = [
        {
            "name": model,
            "path": str(store.path(model)),
            "inputs": str(store.inputs(model)),
            "answer": [1, store.sizes(model).reply // FLOAT_BYTES],
        }
        for model in cases.PEER_CALLS
    ]
    given = {"arm": name, "models": models, "conditions": _conditions(plan, 1, calls)}
    return Arm(PEER_PROGRAM, given, python)


def figures(samples: Mapping[str, Any]) -> dict[str, Figure]:
    """No target is set for what others made."""
    return {}


def tables(samples: Mapping[str, Any]) -> str:
    """All tables of the section, and what is missing."""
    lines = ["Milliseconds a call, back to back, one thread.\n\n", _table(samples)]
    if samples["versions"]:
        told = (
            f"{name}: {', '.join(f'{package} {number}' for package, number in packages.items())}"
            for name, packages in samples["versions"].items()
        )
        lines.append(f"\n{'; '.join(told)}.\n")
    for name, reason in samples["absent"].items():
        lines.append(f"\nNot measured: {name}, which {reason}.\n")
    return "".join(lines)


def _table(samples: Mapping[str, Any]) -> str:
    pairs: Pairs = samples["pairs"]
    rows = []
    for model in samples["models"]:
        for arm in pairs[0]:
            try:
                if arm in (IN_PROCESS, ECHO):
                    cells = [shown(alone(pairs, arm, model)), ""]
                else:
                    more = added(pairs, arm, IN_PROCESS, model)
                    cells = [shown(alone(pairs, arm, model)), shown(more)]
            except NothingLeft:
                cells = ["no quiet block", ""]
            rows.append([model, TEXTS.get(arm, arm), *cells])
    return table(["model", "arm", "whole ms", "added ms"], rows)
