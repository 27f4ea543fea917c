"""What is promised, each judged by the run: policy as data."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.figures import Figures
from model_loader_cli.bench.verdict import Verdict, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on a figure of one section."""

    text: str
    """What is bounded, as it stands in the table."""
    section: str
    figure: str
    """The figure's name in its section."""
    unit: str
    bound: float
    at_least: bool = False
    """Whether the figure must be at least the bound; else at most."""
    or_share: float = 0
    """The bound is this part of the figure `of` instead, where that is more."""
    of: str = ""
    margin: float | None = None
    """What the target allows, which noise is held against; None: the bound itself."""
    digits: int = 3

    def limit(self, figures: Figures) -> float:
        """The bound in this run; raises KeyError without the figure that it is a part of."""
        if not self.of:
            return self.bound
        return max(self.bound, self.or_share * figures[self.of].value.median)

    def verdict(self, figures: Figures) -> Verdict:
        """Judge the run's figure; undecided where it has none."""
        known = figures.get(self.figure)
        if known is None or (self.of and self.of not in figures):
            return Verdict.UNDECIDED
        limit = self.limit(figures)
        return judge(
            known.value,
            limit,
            at_least=self.at_least,
            noise=known.noise,
            margin=self.margin if self.margin is not None else limit,
        )


def _whole_call(threads: int) -> Target:
    prefix = f"MobileNet v2, {threads} threads"
    return Target(
        text=f"added to a whole call, MobileNet v2 float32, {threads} "
        f"thread{'s' if threads > 1 else ''}",
        section="one-call",
        figure=f"{prefix}: added",
        unit="ms",
        bound=0.10,
        or_share=0.02,
        of=f"{prefix}: in process",
    )


TARGETS = (
    Target(
        text="a call less the worker's own invoke time, less the echo; 602 kB in, 4 kB out",
        section="one-call",
        figure="image: call less invoke, over echo",
        unit="ms",
        bound=0.04,
    ),
    Target(
        text="added over in process, same tensors, back to back, 1 thread",
        section="one-call",
        figure="image: added",
        unit="ms",
        bound=0.10,
    ),
    Target(
        text="the same, a call every 20 ms",
        section="one-call",
        figure="image: added, sparse",
        unit="ms",
        bound=0.30,
    ),
    Target(
        text="added, 4 bytes in and out, less the echo",
        section="one-call",
        figure="4 bytes: added, over echo",
        unit="ms",
        bound=0.015,
    ),
    Target(
        text="added, 4 bytes in and out",
        section="one-call",
        figure="4 bytes: added",
        unit="ms",
        bound=0.035,
    ),
    _whole_call(1),
    _whole_call(2),
    Target(
        text="64 MB in, 64 MB out: bytes a second, of what a bare socket pair moves",
        section="one-call",
        figure="64 MB: share of a bare socket pair",
        unit="%",
        bound=80,
        at_least=True,
        margin=20,
        digits=1,
    ),
    Target(
        text="`load()` to ready over in process in a warm Python, 3.6 MB int8 MobileNet v2",
        section="cold",
        figure="MobileNet v2 int8: load, added",
        unit="ms",
        bound=25,
        digits=1,
    ),
    Target(
        text="the same, 14 MB float32 MobileNet v2",
        section="cold",
        figure="MobileNet v2 float32: load, added",
        unit="ms",
        bound=40,
        digits=1,
    ),
    Target(
        text="`import model_loader`, embedded start and first answer of a 4-byte model",
        section="cold",
        figure="first answer",
        unit="ms",
        bound=600,
        digits=0,
    ),
    *(
        Target(
            text=f"private memory of a worker beyond the model's cost in process, {model}",
            section="memory",
            figure=f"{model}: memory, added",
            unit="MB",
            bound=5,
            digits=2,
        )
        for model in ("4 bytes", "MobileNet v2 int8", "MobileNet v2 float32")
    ),
    *(
        Target(
            text="a pipelining client's calls a second, of in process; MobileNet v2, 2 threads, "
            f"by {by}",
            section="throughput",
            figure=f"{arm}: share of in process",
            unit="%",
            bound=98,
            at_least=True,
            margin=2,
            digits=1,
        )
        for arm, by in (("sequence", "`compute_many`"), ("pipelining", "asyncio"))
    ),
    Target(
        text="100 workers with a tiny model: those that answer",
        section="memory",
        figure="100 workers: answers",
        unit="",
        bound=100,
        at_least=True,
        digits=0,
    ),
    Target(
        text="the whole service with them",
        section="memory",
        figure="100 workers: memory",
        unit="MB",
        bound=600,
        digits=0,
    ),
)
