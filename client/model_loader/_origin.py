"""The name under which a program's models are counted, unless it gives one."""

from __future__ import annotations

import os
import sys

from model_loader_wire.causes import printable

from .errors import ConstraintError

ORIGIN_LENGTH = 512
"""Most characters of an origin; of a longer path the end is kept."""


def derived_origin() -> str:
    """``program:`` and the real path of the program's main file, ``module:`` and a name for
    ``python -m``, or ``interactive:`` and the working directory in a shell or notebook.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return _capped("module:", spec.name.removesuffix(".__main__"))
    if isinstance(path, str) and path:
        return _capped("program:", os.path.realpath(path))
    try:
        folder = os.getcwd()
    except OSError:
        folder = "?"
    return _capped("interactive:", folder)


def checked_origin(origin: str | None) -> str:
    """Check a caller's origin, or derive one."""
    if origin is None:
        return derived_origin()
    if not isinstance(origin, str) or not origin:
        raise ConstraintError(f"origin must be a text that is not empty, not {origin!r}")
    if len(origin) > ORIGIN_LENGTH or printable(origin) != origin or "\n" in origin:
        raise ConstraintError(
            f"origin must be at most {ORIGIN_LENGTH} printable characters, not {origin[:80]!r}"
        )
    return origin


def _capped(kind: str, name: str) -> str:
    name = printable(name).replace("\n", " ").replace("\t", " ")
    room = ORIGIN_LENGTH - len(kind)
    return kind + (name if len(name) <= room else "…" + name[-(room - 1) :])
