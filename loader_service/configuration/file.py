"""Reading the configuration's file: TOML, whose every key must be known."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from loader_service.configuration.accounts import members_of
from loader_service.configuration.kinds import Kind, said
from loader_service.configuration.lines import lines_of
from loader_service.configuration.mistakes import Keys, Place, dotted
from loader_service.configuration.nearest import nearest
from loader_service.configuration.schema import LIMIT_KINDS, LIMITS, POLICY, POLICY_KINDS, TABLES
from loader_service.configuration.values import Values

LONGEST = 1 << 20
"""Most bytes of a configuration."""
AT_LINE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
"""Where the standard library's reader says what is no TOML."""


def read_file(path: Path) -> Values:
    """Read a configuration's file; what is wrong with it is among the mistakes."""
    values = Values()
    text = ""
    try:
        text = _text_of(path)
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = AT_LINE.fullmatch(str(error))
        line = int((found and found[2]) or text.count("\n") + 1)
        values.wrong(Place(str(path), line), f"this is no TOML: {found[1] if found else error}")
    except RecursionError:
        values.wrong(Place(str(path)), "its values are nested too deeply")
    except OSError as error:
        values.wrong(Place(str(path)), f"it cannot be read: {error.strerror or error}")
    except ValueError as error:
        values.wrong(Place(str(path)), str(error))
    else:
        _Reader(str(path), lines_of(text), values).read(document)
    return values


def _text_of(path: Path) -> str:
    """Return the file's text; raises OSError, or ValueError for one that cannot be trusted."""
    with open(path, "rb", opener=_opened) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no file")
        if _others_may_write(state):
            raise ValueError(
                "others than root and the service's user may write to it: they would decide what "
                "this service allows"
            )
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"this is no UTF-8: {error.reason} at byte {error.start}") from None


def _opened(path: str, flags: int) -> int:
    """Open without waiting for whoever may be at the other end of what is no file."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _others_may_write(state: os.stat_result) -> bool:
    """Whether anybody but root and the service's user may; a group of its own has no others in it.

    The group of the service's own account is that of its clients.
    """
    trusted = {0, os.geteuid()}
    if state.st_uid not in trusted or state.st_mode & stat.S_IWOTH:
        return True
    return bool(
        state.st_mode & stat.S_IWGRP and state.st_gid and members_of(state.st_gid) - trusted
    )


class _Reader:
    """Walks through the tables of one file."""

    def __init__(self, source: str, lines: Mapping[Keys, int], values: Values) -> None:
        self._source = source
        self._lines = lines
        self._values = values

    def read(self, document: Mapping[str, object]) -> None:
        """Read every table."""
        for name, table in document.items():
            if name == POLICY:
                self._policies(table)
            elif name in TABLES:
                self._table((name,), table, TABLES[name])
            else:
                self._unknown((name,), (*TABLES, POLICY))

    def _policies(self, tables: object) -> None:
        if not isinstance(tables, list):
            self._wrong((POLICY,), f"each policy is a table of its own: [[{POLICY}]]")
            return
        for number, table in enumerate(tables):
            keys: Keys = (POLICY, number)
            self._values.policies.append(self._place(keys))
            if not isinstance(table, dict):
                self._wrong(keys, f"must be a table, not {said(table)}")
                continue
            limits = table.pop(LIMITS, {})
            self._table(keys, table, POLICY_KINDS, also=(LIMITS,))
            self._table((*keys, LIMITS), limits, LIMIT_KINDS)

    def _table(
        self, keys: Keys, table: object, kinds: Mapping[str, Kind], also: Iterable[str] = ()
    ) -> None:
        if not isinstance(table, dict):
            self._wrong(keys, f"must be a table, not {said(table)}")
            return
        for name, value in table.items():
            path = (*keys, name)
            if name not in kinds:
                self._unknown(path, (*kinds, *also))
            else:
                self._values.read(path, kinds[name], value, self._place(path), text=False)

    def _unknown(self, keys: Keys, known: Iterable[str]) -> None:
        self._wrong(keys, "there is no such setting" + nearest(str(keys[-1]), known))

    def _wrong(self, keys: Keys, reason: str) -> None:
        self._values.wrong(self._place(keys), reason)

    def _place(self, keys: Keys) -> Place:
        """Return where a key stands; within an inline table, where that one does."""
        known = (self._lines.get(keys[:length]) for length in range(len(keys), 0, -1))
        return Place(self._source, next((line for line in known if line), None), dotted(keys))
