"""Certificates that are made when a test needs them, by the ``openssl`` command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="this host has no openssl command"
)

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """An authority of a test's own, and what it signed; everything is in its folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Make it."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        openssl(
            *("req", "-x509", *KEY, "-subj", f"/CN={name}", "-days", "2"),
            *("-keyout", self._key, "-out", self.certificate),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
        )

    def sign(
        self, name: str, names: str = "", *, days: int = 2, common_name: str = "", usage: str = ""
    ) -> tuple[Path, Path]:
        """Make a certificate; returns its file and its key's.

        `names` are its subject alternative names in openssl's words, `days` how long it holds:
        below zero it has expired; `usage` is what alone it may be used for.
        """
        paths = [self._folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext")]
        certificate, key, request, extensions = paths
        subject = f"/CN={common_name or name}"
        openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", subject)
        key.chmod(0o600)
        lines = ["basicConstraints=CA:FALSE"]
        lines += [f"subjectAltName={names}"] if names else []
        lines += [f"extendedKeyUsage={usage}"] if usage else []
        extensions.write_text("\n".join(lines), encoding="ascii")
        openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-days", str(days)),
            *("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-extfile", extensions),
        )
        return certificate, key


def openssl(*arguments: str | Path) -> None:
    """Run the command; raises CalledProcessError."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
