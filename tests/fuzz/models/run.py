"""``python -m tests.fuzz models``: mutants of model files through the whole service.

The exit status is 1 if the broker died, the healthy model beside the mutants answered wrongly,
anything hung or was left behind, or the service owned up to a fault of its own.
"""

from __future__ import annotations

import argparse
import datetime
import platform
from pathlib import Path

from loader_service.runtime.runtimes import installed_runtimes
from tests.fuzz.models.campaign import Campaign
from tests.fuzz.models.mutants import Maker
from tests.fuzz.models.seeds import own_seeds, shared_seeds
from tests.fuzz.models.tally import Tally
from tests.fuzz.report import document, markdown, write_json
from tests.support.processes import become_subreaper


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(prog="python -m tests.fuzz models", description=__doc__)
    result.add_argument("--mutants", type=int, default=2000, help="how many (default: 2000)")
    result.add_argument("--seconds", type=float, help="end after that time, with fewer mutants")
    result.add_argument("--seed", type=int, default=1, help="of all mutants (default: 1)")
    result.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    result.add_argument("--runtime", default="auto", help="the runtime (default: the first here)")
    result.add_argument("--own", action="store_true", help="leave the shared models out")
    result.add_argument("--keep", type=Path, help="a folder for mutants that killed their worker")
    result.add_argument("--json", type=Path, help="a file for the counts")
    result.add_argument("--document", type=Path, help="a Markdown file to write the table into")
    return result


def main(arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    given = parser().parse_args(arguments)
    become_subreaper()
    installed = {runtime.name: runtime for runtime in installed_runtimes()}
    name = next(iter(installed)) if given.runtime == "auto" else given.runtime
    own, shared = own_seeds(), [] if given.own else shared_seeds()
    tally = Tally(name, given.keep)
    campaign = Campaign(Maker([*own, *shared], given.seed), tally, runtime=name, jobs=given.jobs)
    campaign.run(given.mutants, given.seconds)
    about = {
        "runtime": f"{name} {installed[name].version}",
        "date": datetime.date.today().isoformat(),
        "seed": given.seed,
        "own models": len(own),
        "shared models": len(shared),
        "python": platform.python_version(),
    }
    says = (
        f"{about['runtime']}, {about['date']}: {tally.table.inputs:,} mutants of {len(own)} models "
        f"of the project's writer and {len(shared)} others, seed {given.seed}.\n\n"
    )
    table = says + markdown(tally.table, ("how a mutant ended", "mutants"))
    print(table)
    if given.json is not None:
        write_json(given.json, [tally.table], about)
    if given.document is not None:
        document(given.document, f"models {name}", table)
    return 0 if tally.good else 1
