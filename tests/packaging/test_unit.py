"""The unit, its drop-ins, and the entries for the account and the folders."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from model_loader_wire.system_service import ACCOUNT
from tests.packaging.unit import ANALYZER, FOLDER, SERVICE, WITHOUT_ANALYZER, Unit

PACKAGING = FOLDER.parent
DROP_INS = sorted(FOLDER.glob("*.conf"))
MOST_EXPOSURE = 2.0
NEEDED_BY_THE_SANDBOX = {
    *("unshare", "mount", "umount2", "pivot_root", "sethostname", "setdomainname", "capset"),
    *("seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"),
    *("pidfd_open", "setxattr", "keyctl", "prlimit64", "memfd_create", "close_range"),
}
analyzed = pytest.mark.skipif(ANALYZER is None, reason=WITHOUT_ANALYZER)


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZER is not None
    return subprocess.run(
        [ANALYZER, "--no-pager", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def exposure(unit: Path) -> float:
    """Return how exposed systemd finds a service: from 0.0, hardly, to 10.0."""
    done = analyze("security", "--offline=true", unit)
    found = re.search(r"exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def with_drop_ins(folder: Path, *drop_ins: Path) -> Path:
    """Write the unit as one that can be checked here: its program is one of this machine."""
    unit = folder / SERVICE.name
    text = SERVICE.read_text(encoding="utf-8")
    there = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
    unit.write_text(there.replace("file:///usr/share", "https://localhost/"), encoding="utf-8")
    for drop_in in drop_ins:
        place = folder / f"{SERVICE.name}.d" / drop_in.name
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(drop_in, place)
    return unit


@analyzed
@pytest.mark.slow
@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=str)
def test_systemd_finds_no_fault(drop_in: Path | None, tmp_path: Path) -> None:
    unit = with_drop_ins(tmp_path, *([drop_in] if drop_in else []))
    done = analyze("verify", unit)
    ours = [line for line in done.stderr.splitlines() if tmp_path.name in line or "model" in line]
    assert (done.returncode, ours) == (0, [])


@analyzed
def test_systemd_finds_a_fault_where_there_is_one(tmp_path: Path) -> None:
    unit = with_drop_ins(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
    assert "perhaps" in analyze("verify", unit).stderr


@analyzed
def test_the_default_unit_is_hardly_exposed() -> None:
    assert exposure(SERVICE) <= MOST_EXPOSURE


@analyzed
@pytest.mark.slow
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_a_drop_in_says_what_it_costs(drop_in: Path, tmp_path: Path) -> None:
    said = re.search(r"(\d\.\d) in place of (\d\.\d)", Unit.read(drop_in).comments)
    assert said
    assert said.groups() == (
        str(exposure(with_drop_ins(tmp_path, drop_in))),
        str(exposure(SERVICE)),
    )


@analyzed
def test_each_point_that_is_left_is_explained_in_the_unit() -> None:
    done = analyze("security", "--offline=true", "--json=short", SERVICE)
    points = [point for point in json.loads(done.stdout) if point["set"] is False]
    assert points
    comments = Unit.read(SERVICE).comments
    unexplained = [
        point["name"]
        for point in points
        if not any(word in comments for word in re.findall(r"[@\w]+", point["name"]))
    ]
    assert unexplained == []


@analyzed
def test_the_filter_lets_through_what_the_sandbox_needs() -> None:
    assert Unit.read(SERVICE).system_calls() >= NEEDED_BY_THE_SANDBOX


def test_workers_with_users_of_their_own_need_five_capabilities() -> None:
    assert Unit.read(SERVICE).words("CapabilityBoundingSet") == []
    unit = Unit.read(SERVICE, FOLDER / "worker-users.conf")
    assert unit.last("User") == "root"
    assert len(unit.words("CapabilityBoundingSet")) == 5


def test_only_the_drop_in_for_tcp_opens_the_network() -> None:
    unit = Unit.read(SERVICE)
    assert unit.yes("PrivateNetwork")
    assert unit.words("RestrictAddressFamilies") == ["AF_UNIX"]
    opened = Unit.read(SERVICE, FOLDER / "tcp.conf")
    assert not opened.yes("PrivateNetwork")
    assert set(opened.words("RestrictAddressFamilies")) == {"AF_UNIX", "AF_INET", "AF_INET6"}


def test_the_account_is_the_one_that_clients_trust() -> None:
    unit = Unit.read(SERVICE)
    assert (unit.last("User"), unit.last("Group")) == (ACCOUNT, ACCOUNT)
    assert f"u {ACCOUNT} -" in (PACKAGING / "sysusers.d/model-loader.conf").read_text()


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers here")
def test_the_account_can_be_made(tmp_path: Path) -> None:
    entry = PACKAGING / "sysusers.d/model-loader.conf"
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(entry)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "not supported" in done.stderr or "Permission denied" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    accounts = (tmp_path / "etc/passwd").read_text().splitlines()
    (account,) = [line.split(":") for line in accounts if line.startswith(f"{ACCOUNT}:")]
    assert 0 < int(account[2]) < 1000


def test_folders_are_made_for_whom_they_are_for() -> None:
    lines = (PACKAGING / "tmpfiles.d/model-loader.conf").read_text().splitlines()
    entries = {
        words[1]: words[2:5]
        for line in lines
        if not line.startswith("#") and (words := line.split())
    }
    assert entries == {
        "/run/model-loader": ["0755", ACCOUNT, ACCOUNT],
        "/var/lib/model-loader": ["0755", "root", "root"],
        "/var/lib/model-loader/models": ["0755", "root", "root"],
    }


def test_the_profile_names_the_program_of_the_unit() -> None:
    """A check of its shape, for machines without apparmor_parser too."""
    text = (PACKAGING / "apparmor/model-loader").read_text()
    (profile,) = re.findall(r"^profile (\S+) (\S+) flags=\(unconfined\) \{$", text, re.MULTILINE)
    unit = Unit.read(SERVICE)
    assert profile == (unit.last("AppArmorProfile").lstrip("-"), unit.last("ExecStart").split()[0])
    assert text.count("{") == text.count("}") == 1
    rules = text.partition("{")[2].partition("}")[0].split("\n")
    assert [rule.strip() for rule in rules if rule.strip()] == [
        "userns,",
        "include if exists <local/model-loader>",
    ]


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="no apparmor_parser here")
def test_apparmor_reads_the_profile() -> None:
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache"]
    done = subprocess.run(
        [*command, str(PACKAGING / "apparmor/model-loader")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "abi/4.0" in done.stderr:
        pytest.skip("this apparmor_parser is older than user namespaces in profiles (4.0)")
    assert done.returncode == 0, done.stderr
