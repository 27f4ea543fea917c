"""Loading for connections that come back: what a model is loaded from is kept, to load it again.

A model that keeps state is no such model: one loaded in its place would have forgotten it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ._effects import InThread, Steps
from ._load import inspect, load, load_by_name
from ._model_core import ModelCore
from ._options import ContextOptions, lower
from ._returning import give_up, left_until, once, patiently, until
from ._session import Session
from ._source import Progress, Source, label_of


@dataclass(frozen=True, slots=True)
class Kept:
    """A model's bytes, or the file that they are read from again."""

    source: bytes | Path
    label: str


def keep(source: Any, most: int | None) -> Kept:
    """Keep what a model can be loaded from once more; raises as ``Source``.

    Of a regular file the path is kept, and of ``bytes``, which do not change, a reference. Anything
    else is copied.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(os.path.abspath(os.fsdecode(source)))
        if stat.S_ISREG(path.stat().st_mode):
            return Kept(path, label_of(path))
    if type(source) is bytes:
        return Kept(source, "")
    opened = Source(source, most)
    try:
        return Kept(b"".join(opened.chunks(hashed=False)), opened.label)
    finally:
        opened.close()


def load_to_return(
    session: Session,
    options: ContextOptions,
    source: Any,
    timeout: float | None,
    on_progress: Progress | None,
) -> Steps[ModelCore]:
    """Load a model; where its connection comes back, so that it can, too, and when it has."""
    if session.open_again is None:
        return (yield from once(session, load(session, options, source, timeout, on_progress)))
    ends = until(timeout)
    most = lower(session.limits, options.limits).model_bytes
    kept: Any = yield InThread(partial(keep, source, most))

    def attempt() -> Steps[ModelCore]:
        wait = None if timeout is None else left_until(ends)
        return load(session, options, kept.source, wait, on_progress, label=kept.label)

    core = yield from patiently(session, attempt, ends)
    return _returning(core, partial(_recall, options, kept))


def load_by_name_to_return(
    session: Session, options: ContextOptions, name: Any, version: Any, timeout: float | None
) -> Steps[ModelCore]:
    """Load a model of the service's repository as `load_to_return` does one of the caller's.

    It comes back as the version that it is, whatever is the highest by then.
    """
    if session.open_again is None:
        return (yield from once(session, load_by_name(session, options, name, version, timeout)))
    ends = until(timeout)

    def attempt() -> Steps[ModelCore]:
        wait = None if timeout is None else left_until(ends)
        return load_by_name(session, options, name, version, wait)

    core = yield from patiently(session, attempt, ends)
    found = int(core.label.rpartition(":")[2])
    return _returning(core, partial(_recall_by_name, options, name, found))


def inspect_when_there(
    session: Session, source: Any, timeout: float | None
) -> Steps[dict[str, Any]]:
    """Have a file read, when the service is there; once only, as its source may be."""
    if session.open_again is not None:
        yield from patiently(session, session.formats, until(timeout))
    return (yield from once(session, inspect(session, source, timeout)))


def _returning(core: ModelCore, recall: Any) -> ModelCore:
    if not core.report.keeps_state:
        core.recall = recall
    return core


def _recall(
    options: ContextOptions, kept: Kept, core: ModelCore, wait: float | None
) -> Steps[None]:
    if isinstance(kept.source, Path):
        yield InThread(partial(_check_file, core, kept.source))
    yield from load(core.session, options, kept.source, wait, None, core, label=kept.label)


def _recall_by_name(
    options: ContextOptions, name: str, version: int, core: ModelCore, wait: float | None
) -> Steps[None]:
    yield from load_by_name(core.session, options, name, version, wait, core)


def _check_file(core: ModelCore, path: Path) -> None:
    """Raise InvalidStateError for a file that is not what it was, before it is sent anywhere."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise give_up(core, f"its file {path} cannot be read: {error.strerror or error}") from None
    if digest != core.report.sha256:
        raise give_up(core, f"its file {path} has changed since it was loaded")
