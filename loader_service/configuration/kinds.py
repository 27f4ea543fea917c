"""What kinds of values settings have: how each is read, and what it should have been."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from loader_service.broker.settings import OF_CERTIFICATES
from loader_service.configuration.accounts import gid_of, uid_of
from loader_service.configuration.nearest import nearest
from loader_service.devices.catalogue import enabled_from_text

NONE = "none"
"""What is written where a limit shall not hold."""
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_Item = TypeVar("_Item")
SIZE = re.compile(r"(\d[\d_]*)\s*([A-Za-z]*)")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Kind(Protocol):
    """One kind of value."""

    def read(self, value: object) -> object:
        """Take a value of TOML; raises ValueError with what is wrong."""
        ...

    def read_text(self, text: str) -> object:
        """Take what the environment has; raises ValueError with what is wrong."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    optional: bool = False

    def read(self, value: object) -> object:
        """Take a whole number, or that there is none."""
        if self.optional and value == NONE:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be {self._said()}, not {said(value)}")
        return value

    def read_text(self, text: str) -> object:
        """Take digits."""
        return self.read(_number(text, int))

    def _said(self) -> str:
        return "a whole number" + (f' or "{NONE}"' if self.optional else "")


@dataclass(frozen=True)
class Size(Whole):
    """A number of bytes, or a text with a unit."""

    def read(self, value: object) -> object:
        """Take a number of bytes: 1048576, "1 MiB"."""
        if isinstance(value, str) and (size := SIZE.fullmatch(value.strip())) is not None:
            if size[2] not in ("", *UNITS):
                raise ValueError(f"has no unit {size[2]!r}; there are {', '.join(UNITS)}")
            return int(size[1]) * UNITS[size[2] or "B"]
        return super().read(value)

    def read_text(self, text: str) -> object:
        """Take digits, or digits with a unit."""
        return self.read(text)

    def _said(self) -> str:
        return 'a number of bytes (1048576 or "1 MiB")' + (f' or "{NONE}"' if self.optional else "")


@dataclass(frozen=True)
class Number:
    """A number that may be no whole one."""

    def read(self, value: object) -> object:
        """Take a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, not {said(value)}")
        return value

    def read_text(self, text: str) -> object:
        """Take a number in its usual form."""
        return self.read(_number(_number(text, int), float))


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    def read(self, value: object) -> object:
        """Take a truth value."""
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {said(value)}")
        return value

    def read_text(self, text: str) -> object:
        """Take one of the usual words."""
        word = text.lower()
        return self.read(word in TRUE if word in TRUE + FALSE else text)


@dataclass(frozen=True)
class Text:
    """A text."""

    optional: bool = False

    def read(self, value: object) -> object:
        """Take a text that is not empty."""
        if self.optional and value == NONE:
            return None
        if not isinstance(value, str):
            raise ValueError(f"must be a text, not {said(value)}")
        if not value or not value.isprintable():
            raise ValueError(f"must be a text without control characters, not {value!r}")
        return value

    def read_text(self, text: str) -> object:
        """Take it as it is."""
        return self.read(text)


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, value: object) -> object:
        """Take one of the words."""
        if value not in self.words:
            raise ValueError(
                f"must be one of {', '.join(self.words)}, not {said(value)}"
                + nearest(str(value), self.words)
            )
        return value

    def read_text(self, text: str) -> object:
        """Take it as it is."""
        return self.read(text)


@dataclass(frozen=True)
class Group:
    """A group of the system; gives its gid."""

    def read(self, value: object) -> object:
        """Take a name or a gid, or that there is none."""
        return None if value == NONE else gid_of(value)

    def read_text(self, text: str) -> object:
        """Take it as it is."""
        return self.read(text)


@dataclass(frozen=True)
class Several:
    """A list; gives a frozenset."""

    what: str
    """What its items are, in words."""
    item: Callable[[object], object]
    """Takes one of them; raises ValueError."""

    def read(self, value: object) -> object:
        """Take a list; every item that is wrong is told."""
        return frozenset(_items(value, self.what, self.item))

    def read_text(self, text: str) -> object:
        """Take items with commas between them; the empty text is the empty list."""
        return self.read([part.strip() for part in text.split(",")] if text.strip() else [])


@dataclass(frozen=True)
class Devices:
    """A list of devices, of which each counts once, and the first is preferred; gives a tuple."""

    def read(self, value: object) -> object:
        """Take a list of texts, in their order; every one that is wrong is told."""
        return tuple(dict.fromkeys(_items(value, "devices", device_of)))

    def read_text(self, text: str) -> object:
        """Take devices with commas between them; the empty text is the empty list.

        A path or ``KEY=VALUE`` behind a comma belongs to the device before.
        """
        names: list[str] = []
        for part in (part.strip() for part in text.split(",") if text.strip()):
            before, equals, _ = part.partition("=")
            if names and (part.startswith("/") or (equals and ":" not in before)):
                names[-1] += f",{part}"
            else:
                names.append(part)
        return self.read(names)


def device_of(value: object) -> str:
    """Take what names a device and says what it needs; raises ValueError."""
    if not _is_name(value) or not isinstance(value, str):
        raise ValueError(f"{said(value)} is no name of a device")
    enabled_from_text(value)
    return value


def digest_of(value: object) -> bytes:
    """Take a SHA-256 in hexadecimal digits; raises ValueError."""
    if not isinstance(value, str) or re.fullmatch("[0-9a-fA-F]{64}", value) is None:
        raise ValueError(f"{said(value)} is no SHA-256 (64 hexadecimal digits)")
    return bytes.fromhex(value)


def client_of(value: object) -> str:
    """Take what a certificate names, with its kind before it; raises ValueError."""
    kinds = ", ".join(OF_CERTIFICATES)
    if not _is_name(value) or not isinstance(value, str) or not value.startswith(OF_CERTIFICATES):
        raise ValueError(f"{said(value)} must begin with one of {kinds}")
    if value in OF_CERTIFICATES or "*" in value:
        raise ValueError(f"{said(value)} names nobody: a name is the whole name")
    return value


def token_of(value: object) -> str:
    """Take the name of a token; raises ValueError."""
    if not _is_name(value) or not isinstance(value, str):
        raise ValueError(f"{said(value)} is no name of a token")
    return value


USERS = Several("users (names or uids)", uid_of)
GROUPS = Several("groups (names or gids)", gid_of)
CERTIFICATES = Several("certificates' names", client_of)
TOKENS = Several("tokens' names", token_of)
DIGESTS = Several("SHA-256 digests", digest_of)


def said(value: object) -> str:
    """Write a value as its file would, as far as that tells what it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return repr(value)


def _items(value: object, what: str, item: Callable[[object], _Item]) -> list[_Item]:
    """Read each item of a list; raises ValueError that tells all that are wrong."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list of {what}, not {said(value)}")
    found, wrong = [], []
    for one in value:
        try:
            found.append(item(one))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return found


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _number(text: object, kind: type[int] | type[float]) -> object:
    """Read digits; what is no number is given back, for its reader to refuse."""
    try:
        return kind(text) if isinstance(text, str) else text
    except ValueError:
        return text
