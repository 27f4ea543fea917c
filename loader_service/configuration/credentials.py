"""The files of the TCP port: read, checked as far as files can be, and never shown."""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from loader_service.broker.tcp_settings import FILES, Credentials, Tcp
from loader_service.configuration.mistakes import DEFAULT, Place
from loader_service.configuration.values import Values

LONGEST = 1 << 20
"""Most bytes of one of the files."""
TOKEN_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})\s+([0-9a-fA-F]{64})")

TCP = "tcp"


def read_credentials(values: Values, tcp: Tcp) -> Credentials | None:
    """Read the files that the table ``tcp`` names; what is wrong or missing becomes a mistake.

    None where no port is asked for, and where there was a mistake.
    """
    before = len(values.mistakes)
    if tcp.listen is None:
        for name in () if _was_wrong(values, "listen") else FILES:
            if getattr(tcp, name) is not None:
                values.wrong(_place(values, name), "is for a port, and there is none: see listen")
        return None
    for name in ("certificate", "key"):
        if getattr(tcp, name) is None and not _was_wrong(values, name):
            reason = f"the port needs a {name}: without TLS there is none"
            values.wrong(_place(values, "listen"), reason)
    asked = (tcp.client_ca, tcp.tokens) != (None, None)
    if not (asked or _was_wrong(values, "client_ca") or _was_wrong(values, "tokens")):
        reason = "the port needs client_ca or tokens: nobody is let in without credentials"
        values.wrong(_place(values, "listen"), reason)
    contents = {name: _content(values, tcp, name) for name in FILES}
    _check(values, "client_ca", contents["client_ca"], _check_authorities)
    tokens = _tokens(values, tcp.tokens, contents["tokens"])
    certificate, key = contents["certificate"], contents["key"]
    if certificate is None or key is None:
        return None
    _check(values, "key", key, lambda _: _check_pair(tcp))
    if len(values.mistakes) > before:
        return None
    return Credentials(
        certificate=certificate, key=key, client_ca=contents["client_ca"], tokens=tokens
    )


def table_is_sound(values: Values) -> bool:
    """Whether there is no mistake in the table ``tcp``."""
    names = (mistake.place.name for mistake in values.mistakes)
    return not any(name.startswith((f"{TCP}.", "MODEL_LOADER_TCP_")) for name in names)


def _place(values: Values, name: str) -> Place:
    given = values.given.get((TCP, name))
    return DEFAULT if given is None else given.place


def _was_wrong(values: Values, name: str) -> bool:
    """Whether that setting was given and could not be taken."""
    names = {mistake.place.name for mistake in values.mistakes}
    return bool(names & {f"{TCP}.{name}", f"MODEL_LOADER_TCP_{name.upper()}"})


def _check(values: Values, name: str, data: bytes | None, check: Callable[[bytes], None]) -> None:
    if data is not None:
        try:
            check(data)
        except (OSError, ValueError) as error:
            values.wrong(_place(values, name), str(error))


def _content(values: Values, tcp: Tcp, name: str) -> bytes | None:
    """Read a file that only root and the service's user may change; None if that fails."""
    path = getattr(tcp, name)
    if path is None:
        return None
    try:
        return _read(Path(path), secret=name == "key")
    except OSError as error:
        values.wrong(_place(values, name), f"{path} cannot be read: {error.strerror or error}")
    except ValueError as error:
        values.wrong(_place(values, name), f"{path} {error}")
    return None


def _read(path: Path, *, secret: bool) -> bytes:
    # A pipe would keep whoever opens it waiting.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("is no file")
        mode = f"{state.st_mode & 0o7777:o}"
        if state.st_uid not in (0, os.geteuid()) or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(
                f"can be changed by others than root and the service's user (mode {mode}, uid "
                f"{state.st_uid}): they would decide who comes in"
            )
        if secret and state.st_mode & stat.S_IRWXO:
            raise ValueError(
                f"is a private key that every user of this machine can read (mode {mode}): chmod "
                "o-rwx it, and have a new one made if anybody may have read it"
            )
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} bytes")
    return data


def _check_authorities(data: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "replace"))
    except ssl.SSLError:
        raise ValueError("holds no certificates in PEM") from None
    authorities = context.get_ca_certs()
    if not authorities:
        raise ValueError("holds no certificate of an authority")
    ends = (ssl.cert_time_to_seconds(str(found["notAfter"])) for found in authorities)
    if max(ends) < time.time():
        raise ValueError("every authority in it has expired: no client could come in")


def _check_pair(tcp: Tcp) -> None:
    """Raise ValueError unless certificate and key can be read and belong together."""

    def refuse() -> NoReturn:
        raise ValueError("the key has a passphrase, and nobody is there to give it")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(str(tcp.certificate), str(tcp.key), password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError("the key is not that of the certificate") from None
        raise ValueError("certificate and key cannot be read as PEM") from None


def _tokens(values: Values, path: str | None, data: bytes | None) -> dict[bytes, str]:
    """Read the file of tokens: a name and a SHA-256 in each line; a name may have several."""
    found: dict[bytes, str] = {}
    for number, line in enumerate((data or b"").decode("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = TOKEN_LINE.fullmatch(words)
        # What stands there instead may be a token: it is not repeated.
        if match is None:
            reason = "a line is a name and a SHA-256 (64 hexadecimal digits), and this is none"
        elif found.setdefault(digest := bytes.fromhex(match[2]), match[1]) != match[1]:
            reason = f"this is also the token of {found[digest]!r}"
        else:
            continue
        values.wrong(Place(str(path), number, "tokens"), reason)
    return found
