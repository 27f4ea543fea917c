"""From a file, the environment and flags to settings, or to every mistake with its place."""

from __future__ import annotations

import grp
import json
import os
import pwd
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from loader_service.broker.settings import Policy, Settings
from loader_service.configuration import accounts, building, default_policy
from loader_service.configuration.configuration import Configuration, configure
from loader_service.configuration.kinds import Devices
from loader_service.configuration.mistakes import ConfigurationError, Keys
from loader_service.configuration.schema import (
    LIMIT_KINDS,
    NESTED,
    POLICY_KINDS,
    SERVICE_NAMES,
    TABLES,
    kind_of,
)
from loader_service.configuration.shown import as_json, as_toml
from model_loader_wire.limits import DEFAULT_LIMITS, Limits
from tests.shared_models import REPOSITORY

EXAMPLE = REPOSITORY / "packaging" / "config.example.toml"
DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nobody made the service's group."""
    monkeypatch.setattr(default_policy, "GROUP", "no-group-of-that-name")


def read(text: str, folder: Path, **more: Any) -> Configuration:
    """Configure by a file of that text."""
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return configure("/d", file, **more)


def mistakes(text: str, folder: Path, **more: Any) -> list[str]:
    """Every mistake in a file of that text, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        read(text, folder, **more)
    return [str(item).replace(f"{folder}/config.toml", "FILE") for item in caught.value.mistakes]


def test_nothing_given_gives_the_defaults() -> None:
    assert configure("/d").settings == Settings(directory="/d")


def test_each_source_overrides_the_ones_before(tmp_path: Path) -> None:
    text = "[limits]\nthreads = 3\nprocesses = 4\nmodel_bytes = '5 MiB'\ncompute_seconds = 2"
    environment = {
        "MODEL_LOADER_LIMITS_PROCESSES": "6",
        "MODEL_LOADER_LIMITS_MODEL_BYTES": "7MiB",
        "MODEL_LOADER_ADDRESS": "/elsewhere",
        "MODEL_LOADER_SHARED": "no setting of the service",
    }
    flags: dict[Keys, tuple[str, Any]] = {("limits", "model_bytes"): ("--model-bytes", "8")}
    found = read(text, tmp_path, environment=environment, flags=flags)
    limits = replace(DEFAULT_LIMITS, threads=3, processes=6, model_bytes=8, compute_seconds=2)
    assert found.settings == Settings(directory="/d", limits=limits)
    assert str(found.place("limits", "threads")) == f"{tmp_path}/config.toml:2: limits.threads"
    assert str(found.place("limits", "processes")) == "MODEL_LOADER_LIMITS_PROCESSES"
    assert str(found.place("limits", "model_bytes")) == "--model-bytes"
    assert str(found.place("limits", "memory_bytes")) == "default"


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """
[service]
runtime = "litret"
users = ["root", "nobody-of-that-name", -1]
spare_seconds = -1
log_level = 3
[limits]
memory_byte = 1
memory_bytes = "1 GB"
threads = true
compute_seconds = "fast"
processes = 0
load_seconds = nan
[shared_limits]
total_processes = 1.5
[servcie]
[[policy]]
[[policy]]
name = "b"
user = ["root"]
allowed_sha256 = ["12", "AB"]
[policy.limits]
threads = 0
"""
    environment = {
        "MODEL_LOADER_LIMITS_THREDS": "1",
        "MODEL_LOADER_SERVICE_KEPT_MODEL_BYTES": "many",
    }
    flags: dict[Keys, tuple[str, Any]] = {
        ("service", "embedders"): ("--embedder", ["no-such-user"]),
        ("service", "crash_loop_deaths"): ("--crash-loop-deaths", "0"),
    }
    assert mistakes(text, tmp_path, environment=environment, flags=flags) == [
        'MODEL_LOADER_SERVICE_KEPT_MODEL_BYTES: must be a number of bytes (1048576 or "1 MiB"), '
        "not 'many'",
        "MODEL_LOADER_LIMITS_THREDS: there is no such setting; did you mean "
        "'MODEL_LOADER_LIMITS_THREADS'?",
        "--embedder: there is no user 'no-such-user'",
        "--crash-loop-deaths: must be above zero, not 0",
        "FILE:3: service.runtime: must be one of auto, litert, tflite-runtime, not 'litret'; did "
        "you mean 'litert'?",
        "FILE:4: service.users: there is no user 'nobody-of-that-name'; there is no user -1",
        "FILE:5: service.spare_seconds: must not be negative, not -1",
        "FILE:6: service.log_level: must be one of debug, info, warning, error, not 3",
        "FILE:8: limits.memory_byte: there is no such setting; did you mean 'memory_bytes'?",
        "FILE:9: limits.memory_bytes: has no unit 'GB'; there are B, KiB, MiB, GiB, TiB",
        "FILE:10: limits.threads: must be a whole number, not true",
        "FILE:11: limits.compute_seconds: must be a number, not 'fast'",
        "FILE:12: limits.processes: must be above zero, not 0",
        "FILE:13: limits.load_seconds: must be above zero, not nan",
        "FILE:15: shared_limits.total_processes: must be a whole number, not 1.5",
        "FILE:16: servcie: there is no such setting; did you mean 'service'?",
        "FILE:17: policy[1]: this policy is for nobody: it needs users, groups, "
        "certificates or tokens",
        "FILE:20: policy[2].user: there is no such setting; did you mean 'users'?",
        "FILE:21: policy[2].allowed_sha256: '12' is no SHA-256 (64 hexadecimal digits); 'AB' is no "
        "SHA-256 (64 hexadecimal digits)",
        "FILE:23: policy[2].limits.threads: must be above zero, not 0",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = [", "FILE:1: this is no TOML: Invalid value"),
        ("[limits]\nthreads = 1\nthreads = 2", "FILE:3: this is no TOML: Cannot overwrite a value"),
        ("limits = 3", "FILE:1: limits: must be a table, not 3"),
        ("[policy]\nusers = [0]", "FILE:1: policy: each policy is a table of its own: [[policy]]"),
        ("policy = [1]", "FILE:1: policy[1]: must be a table, not 1"),
        (
            "[[policy]]\nusers = [0]\nlimits = 1",
            "FILE:3: policy[1].limits: must be a table, not 1",
        ),
        (
            "[[policy]]\nusers = [0]\nlimits = { thread = 1 }",
            "FILE:3: policy[1].limits.thread: there is no such setting; did you mean 'threads'?",
        ),
        (
            "[[policy]]\nname='a'\nusers = [7]\n[[policy]]\nusers = [8, 7]",
            f"FILE:4: policy[2]: {accounts.name_of(7)} has a policy already: 'a'",
        ),
        (
            "[[policy]]\nname='a'\nusers = [7]\n[[policy]]\nusers = [8]\nname = 'a'",
            "FILE:6: policy[2].name: there is a policy 'a' already, and limits are set by its name",
        ),
        (
            "[[policy]]\nusers = [7]\nname = 'service'",
            "FILE:3: policy[1].name: there is a policy 'service' already",
        ),
        (
            "[service]\nisolation = 'origin'\n[limits]\nmodels_per_origin = 241",
            "FILE:4: limits.models_per_origin: with isolation 'origin' models_per_origin is at "
            "most 240, not 241",
        ),
        (
            "[[policy]]\nusers = [0]\nisolation = 'origin'\nlimits = { models_per_origin = 241 }",
            "FILE:4: policy[1].limits.models_per_origin: with isolation 'origin' "
            "models_per_origin is at most 240, not 241",
        ),
        ("[limits]\nmemory_bytes = 'none'", "FILE:2: limits.memory_bytes: must be a number of"),
        (
            "[shared_limits]\ncalls_at_a_time = 9007199254740991",
            "FILE:2: shared_limits.calls_at_a_time: must be at most 1,073,741,823, not 9007199",
        ),
        (
            "[service]\nhandshake_seconds = inf",
            "FILE:2: service.handshake_seconds: must be at most 1,000,000, not inf",
        ),
        (
            "[service]\nkept_model_bytes = '9999999999 TiB'",
            "FILE:2: service.kept_model_bytes: must be at most 9,007,199,254,740,991, not 109",
        ),
    ],
)
def test_a_mistake_is_told_where_it_is(text: str, said: str, tmp_path: Path) -> None:
    (mistake,) = mistakes(text, tmp_path)
    assert mistake.startswith(said)


def test_a_file_that_cannot_be_trusted_or_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"

    def refusal() -> str:
        with pytest.raises(ConfigurationError) as caught:
            configure("/d", file)
        return str(caught.value)

    assert "cannot be read: No such file or directory" in refusal()
    file.write_bytes(b"\xff = 1")
    assert "this is no UTF-8: invalid start byte at byte 0" in refusal()
    file.write_bytes(b"#" * (1 << 20) + b"\n")
    assert "it is longer than 1048576 bytes" in refusal()
    file.write_bytes(b"")
    file.chmod(0o666)
    assert "others than root and the service's user may write to it" in refusal()
    file.chmod(0o644)
    assert configure("/d", file).settings == Settings(directory="/d")
    if os.geteuid() == 0:
        os.chown(file, 1234, 0)
        assert "others than root and the service's user may write to it" in refusal()
        os.chown(file, 0, 4321)
    file.chmod(0o664)
    people = [account("own", os.geteuid(), file.stat().st_gid)]
    monkeypatch.setattr(pwd, "getpwall", lambda: people)
    if file.stat().st_gid:
        assert configure("/d", file).settings == Settings(directory="/d")
        people.append(account("client", 1234, file.stat().st_gid))
        assert "others than root and the service's user may write to it" in refusal()
    file.write_bytes(b"a = " + b"[" * 100_000)
    file.chmod(0o644)
    assert "its values are nested too deeply" in refusal()
    file.unlink()
    file.mkdir()
    assert "cannot be read: Is a directory" in refusal()
    file.rmdir()
    os.mkfifo(file)  # which nobody writes to: it is not waited for
    assert "it is no file" in refusal()


def test_a_policy_takes_from_the_service_what_it_does_not_say(tmp_path: Path) -> None:
    text = f"""
[service]
operators = "hardened"
users = [7]
[limits]
threads = 5
[[policy]]
users = [8]
allowed_sha256 = ["{DIGEST}"]
[policy.limits]
memory_bytes = "2 GiB"
[[policy]]
name = "gateway"
users = [9]
operators = "standard"
isolation = "origin"
embedder = true
limits.cpu_percent = 50
"""
    settings = read(text, tmp_path).settings
    limits = replace(DEFAULT_LIMITS, threads=5)
    assert settings.policies == (
        Policy(
            name="policy 1",
            uids=frozenset({8}),
            operators="hardened",
            limits=replace(limits, memory_bytes=2 << 30),
            allowed_sha256=frozenset({bytes.fromhex(DIGEST)}),
        ),
        Policy(
            name="gateway",
            uids=frozenset({9}),
            isolation="origin",
            embedder=True,
            limits=replace(limits, cpu_percent=50),
        ),
    )
    assert settings.users == {os.geteuid(), 7, 8, 9}
    assert settings.policy_of(7) == settings.policy_of(os.geteuid()) == settings.own_policy()
    assert settings.policy_of(8) == settings.policies[0]
    assert settings.policy_of(10) is None


def account(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    """A line of the system's list of users."""
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/false"))


def test_the_members_of_a_group_are_those_of_the_systems_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = {"first": account("first", 70, 700), "listed": account("listed", 71, 1)}
    group = grp.struct_group(("staff", "x", 700, ["listed", "without-account"]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [*people.values(), account("other", 72, 2)])
    monkeypatch.setattr(pwd, "getpwnam", people.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", {"staff": group, "model-loader": group}.__getitem__)
    monkeypatch.setattr(grp, "getgrgid", {700: group}.__getitem__)
    text = "[[policy]]\nname = 'a'\ngroups = ['staff']\n[[policy]]\nname = 'b'\nusers = [71]"
    settings = read(text, tmp_path).settings
    assert settings.policies[0].gids == {700}
    assert settings.policies[0].members == {70, 71}
    # Who is named comes before who is a member only.
    assert [settings.policy_of(uid) for uid in (70, 71, 72)] == [*settings.policies, None]
    # Without any policy, root's service has the one of its own group.
    monkeypatch.setattr(default_policy, "GROUP", "model-loader")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (policy,) = configure("/d").settings.policies
    assert policy.gids == {700}
    assert policy.members == {70, 71}
    assert policy.limits == default_policy.MODEST_LIMITS
    monkeypatch.setattr(os, "geteuid", lambda: 70)
    assert configure("/d").settings.policies == ()


def test_what_is_shown_is_a_file_that_gives_the_same(tmp_path: Path) -> None:
    text = f"""
[service]
users = [7, 8]
[limits]
cpu_percent = 50
[[policy]]
name = "a \\"b\\" ü"
users = [9]
allowed_sha256 = ["{DIGEST}"]
limits = {{ cpu_percent = "none", tensor_bytes = 10 }}
"""
    found = read(text, tmp_path)
    shown = as_toml(found)
    lines = {line.split(" = ")[0]: line for line in shown.splitlines() if " = " in line}
    assert lines["users"].endswith(f"# {tmp_path}/config.toml:8: policy[1].users")
    assert lines["runtime"].endswith('"auto"                              # default')
    (tmp_path / "again").mkdir()
    assert read(shown, tmp_path / "again").settings == found.settings
    said = json.loads(as_json(found))
    assert said["limits"]["cpu_percent"] == 50
    assert said["policy"][0]["allowed_sha256"] == [DIGEST]
    assert said["policy"][0]["limits"]["cpu_percent"] is None
    assert said["places"]["limits.cpu_percent"] == f"{tmp_path}/config.toml:5: limits.cpu_percent"


def test_every_field_can_be_configured() -> None:
    hints = get_type_hints(Settings)
    for field in fields(Settings):
        assert field.name in NESTED or kind_of(field.name, hints[field.name]), field.name
    assert set(LIMIT_KINDS) == {field.name for field in fields(Limits)}
    of_policy = {field.name for field in fields(Policy)} - {"limits", "members", "uids", "gids"}
    assert set(POLICY_KINDS) == of_policy | {"users", "groups"}


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        (["xnnpack", "openvino", "xnnpack"], "xnnpack, openvino,xnnpack", ("xnnpack", "openvino")),
        ([], "", ()),
        (["external:a=/ü.so"], "external:a=/ü.so", ("external:a=/ü.so",)),
        (
            ["openvino", "external:a=/a.so,/dev/a,k=v:w", "external:b=/b.so"],
            "openvino,external:a=/a.so, /dev/a,k=v:w,external:b=/b.so",
            ("openvino", "external:a=/a.so,/dev/a,k=v:w", "external:b=/b.so"),
        ),
    ],
)
def test_devices_keep_their_order(value: object, text: str, found: tuple[str, ...]) -> None:
    assert Devices().read(value) == Devices().read_text(text) == found


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("openvino", "must be a list of devices, not 'openvino'"),
        ({"openvino": 1}, "must be a list of devices, not a table"),
        ([1], "^1 is no name of a device$"),
        ([""], "^'' is no name of a device$"),
        (["openvino\n"], "is no name of a device"),
        (
            ["npu", "openvino", "external:a"],
            "^no device is called 'npu'.*; device 'external:a' nee",
        ),
    ],
)
def test_every_device_that_cannot_be_is_told(value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Devices().read(value)


def test_the_example_has_every_setting_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is, and with every `#name = value` in force."""
    text = EXAMPLE.read_text(encoding="utf-8")
    everything = "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in text.splitlines()
    )
    directory = '"/run/model-loader"'
    assert f"directory = {directory}" in everything
    assert read(text, tmp_path).settings == Settings(directory="/d")
    monkeypatch.setattr(accounts, "uid_of", lambda user: 1000)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: account(name, 1000, 1000))
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", 50, [])))
    # By default there is no port, and so nobody can come as the example's policy allows.
    monkeypatch.setattr(building, "_check_clients", lambda *_: None)
    found = read(everything, tmp_path)
    settings = replace(found.settings, policies=())
    assert settings == Settings(directory="/run/model-loader")
    for table, kinds in TABLES.items():
        missing = [name for name in kinds if found.place(table, name).line is None]
        assert not missing, f"{EXAMPLE.name} has no line in [{table}] for {missing}"
    (policy,) = found.settings.policies
    given = {str(keys[-1]) for keys in found.places if keys[0] == "policy"}
    assert given >= set(POLICY_KINDS)
    assert policy.limits.memory_bytes == 256 << 20
    assert set(SERVICE_NAMES.values()) == set(TABLES["service"])
