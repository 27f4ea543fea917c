"""The second run as an unprivileged user is what it claims to be (collected only there)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.shared_models import REPOSITORY, shared_folder
from tests.support.as_user import UID_VARIABLE

pytestmark = pytest.mark.isolation


def test_the_second_run_has_one_uid_no_groups_and_no_capabilities() -> None:
    uid = int(os.environ[UID_VARIABLE])
    assert uid != 0
    assert os.getresuid() == (uid, uid, uid)
    assert os.getresgid() == (uid, uid, uid)
    assert os.getgroups() == []
    status = Path("/proc/self/status").read_text().splitlines()
    held = {
        line.split(":")[0]: int(line.split()[1], 16)
        for line in status
        if line.startswith(("CapPrm:", "CapEff:", "CapInh:", "CapAmb:"))
    }
    assert held == {"CapPrm": 0, "CapEff": 0, "CapInh": 0, "CapAmb": 0}


def test_the_second_run_imports_the_copy() -> None:
    import model_loader_wire

    assert Path(model_loader_wire.__file__).is_relative_to(REPOSITORY)
    assert REPOSITORY.stat().st_uid == os.getuid()
    assert Path(sys.prefix).is_relative_to(REPOSITORY.parent)


def test_the_second_run_may_read_what_it_was_given() -> None:
    assert os.access(sys.executable, os.X_OK)
    named = os.environ.get("MODEL_LOADER_SHARED")
    assert (named is None) == (shared_folder() is None)
    for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
        folder = os.stat(os.environ[name])
        assert (folder.st_uid, folder.st_mode & 0o777) == (os.getuid(), 0o700)
