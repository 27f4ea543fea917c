"""The direction of dependencies between the rooms, read from the code.

`docs/architecture.md` states the rules; each is a test here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from loader_service.runtime.runtimes import MODULES
from tests.shared_models import REPOSITORY

ROOTS = (REPOSITORY / "client", REPOSITORY)
PACKAGES = ("model_loader_wire", "model_loader", "model_loader_cli", "loader_service")
WIRE = "model_loader_wire"
GENERATED = "model_loader_wire.v1"
GRPC = ("grpc", "google")
RUNTIMES = ("ai_edge_litert", "tflite_runtime", "tensorflow")


@dataclass(frozen=True)
class Module:
    """One file of the packages, and every name that it imports, at whatever depth."""

    name: str
    imports: frozenset[str]


def imports_of(source: str, name: str, is_package: bool) -> Iterator[str]:
    """Yield what a file imports as absolute names; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def modules() -> dict[str, Module]:
    """Return every module of the four packages by name."""
    found = {}
    for package in PACKAGES:
        (root,) = [root for root in ROOTS if (root / package).is_dir()]
        for path in sorted((root / package).rglob("*.py")):
            is_package = path.name == "__init__.py"
            place = path.relative_to(root).with_suffix("")
            name = ".".join(place.parent.parts if is_package else place.parts)
            imports = imports_of(path.read_text(encoding="utf-8"), name, is_package)
            found[name] = Module(name, frozenset(imports))
    return found


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def room(*packages: str) -> list[Module]:
    """Return the modules of these packages."""
    chosen = [module for module in modules().values() if within(module.name, *packages)]
    assert chosen, packages
    return chosen


def crossing(chosen: list[Module], *forbidden: str) -> list[str]:
    """List the imports of what is forbidden, one text each."""
    return sorted(
        f"{module.name} imports {name}"
        for module in chosen
        for name in module.imports
        if within(name, *forbidden)
    )


def foreign(chosen: list[Module], *allowed: str) -> list[str]:
    """List the imports of what is neither the standard library's nor allowed."""
    return sorted(
        f"{module.name} imports {name}"
        for module in chosen
        for name in module.imports
        if name.split(".")[0] not in sys.stdlib_module_names and not within(name, *allowed)
    )


def reached(*names: str) -> set[str]:
    """Return every imported name that can be reached from these modules through the packages."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parts = name.split(".")
        # Importing a module runs the packages around it.
        waiting += [".".join(parts[:count]) for count in range(1, len(parts))]
        if name in modules():
            waiting += modules()[name].imports
    return seen


def test_the_client_does_not_import_the_service() -> None:
    assert not crossing(room("model_loader", WIRE), "loader_service")


def test_the_client_needs_numpy_grpc_and_protobuf_only() -> None:
    allowed = ("model_loader", WIRE, "numpy", *GRPC)
    assert not foreign(room("model_loader"), *allowed)


def test_the_wire_contract_needs_the_standard_library_only() -> None:
    plain = [module for module in room(WIRE) if not within(module.name, GENERATED)]
    assert not foreign(plain, WIRE)
    assert not crossing(plain, GENERATED)


def test_the_workers_rooms_know_neither_grpc_nor_the_broker() -> None:
    names = ("worker", "sandbox", "runtime", "devices")
    rooms = room(*(f"loader_service.{name}" for name in names))
    assert not crossing(rooms, *GRPC, GENERATED, "loader_service.broker", "model_loader")


def test_a_workers_process_reaches_neither_grpc_nor_the_broker_nor_the_client() -> None:
    programs = ("loader_service.worker.zygote", "loader_service.worker.executed")
    names = reached(*programs, *MODULES.values())
    assert "loader_service.worker.serving" in names
    assert "numpy" in names
    forbidden = (*GRPC, GENERATED, "loader_service.broker", "model_loader", "asyncio")
    assert not sorted(name for name in names if within(name, *forbidden))


def test_a_plain_workers_process_reaches_no_device() -> None:
    names = reached("loader_service.worker.zygote", *MODULES.values())
    assert not sorted(name for name in names if within(name, "loader_service.devices"))


def test_the_devices_know_the_runtimes_room_and_not_the_worker() -> None:
    devices = room("loader_service.devices")
    assert not crossing(devices, "loader_service.worker")
    assert not crossing(room("loader_service.runtime"), "loader_service.devices")


def test_what_the_broker_knows_of_devices_needs_the_standard_library_only() -> None:
    catalogue = modules()["loader_service.devices.catalogue"]
    own = ("loader_service.devices.catalogue", "loader_service.sandbox")
    assert not foreign([catalogue], *own)
    names = reached("loader_service.broker.daemon", "loader_service.broker.embedded")
    devices = {name for name in names if within(name, "loader_service.devices")}
    known = {module for module in devices if module in modules()} - {"loader_service.devices"}
    assert not foreign([modules()[name] for name in known], *known, "loader_service.sandbox")


def test_the_sandbox_needs_the_standard_library_only() -> None:
    assert not foreign(room("loader_service.sandbox"), "loader_service.sandbox")


def test_policy_imports_no_mechanism() -> None:
    values = [modules()[f"loader_service.sandbox.{name}"] for name in ("policy", "layers")]
    assert not crossing(values, *PACKAGES)
    settings = crossing([modules()["loader_service.broker.settings"]], "loader_service")
    known = ("loader_service.devices.catalogue", "loader_service.broker.tcp_settings")
    assert [line for line in settings if not within(line.split()[-1], *known)] == []
    assert not crossing([modules()["loader_service.broker.tcp_settings"]], *PACKAGES)


def test_the_configuration_knows_the_settings_that_it_fills_and_no_mechanism() -> None:
    known = (
        *("loader_service.broker.settings", "loader_service.broker.tcp_settings"),
        "loader_service.broker.network_client",
        "loader_service.devices.catalogue",
        "loader_service.configuration",
    )
    names = crossing(room("loader_service.configuration"), "loader_service", "model_loader")
    assert not [text for text in names if not within(text.split()[-1], *known)]
    assert not crossing([modules()["loader_service.broker.network_client"]], *PACKAGES)


def test_the_runtimes_room_does_not_know_the_worker() -> None:
    assert not crossing(room("loader_service.runtime"), "loader_service.worker")
    assert not crossing(room("loader_service.writer"), "loader_service.worker")


def test_the_broker_has_nothing_that_parses_a_model() -> None:
    names = reached("loader_service.broker.daemon", "loader_service.broker.embedded")
    assert "loader_service.broker.servicer" in names
    parsers = ("loader_service.runtime", "loader_service.writer", "flatbuffers", "numpy")
    assert not sorted(name for name in names if within(name, *parsers, *RUNTIMES))


def test_the_command_line_uses_the_clients_public_face() -> None:
    # `ps` looks where a daemon would be: to connect would start a private broker.
    addresses = "model_loader._address"
    private = [
        f"{module.name} imports {name}"
        for module in room("model_loader_cli")
        for name in module.imports
        if within(name, "model_loader") and any(part[0] == "_" for part in name.split("."))
        if not within(name, addresses)
    ]
    assert not private


def test_the_mechanism_of_the_benchmarks_knows_no_service_and_no_model() -> None:
    # `model-loader bench` and benchmarks/ share it, so it has neither's models nor targets.
    assert not crossing(room("model_loader_cli.bench"), "loader_service", "model_loader_wire")


def test_no_package_imports_the_tests() -> None:
    assert not crossing(list(modules().values()), "tests", "benchmarks", "examples")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("model_loader", (*RUNTIMES, "loader_service", "flatbuffers", "click", "rich")),
        (
            "loader_service.broker.daemon",
            ("argparse", "asyncio", "logging", "loader_service.broker.daemon_command"),
        ),
        ("loader_service.broker.daemon_command", (*RUNTIMES, "flatbuffers", "numpy")),
        ("loader_service.worker.zygote", ("grpc", "google.protobuf", "asyncio", "psutil")),
    ],
)
def test_what_an_import_does_not_load(module: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([n for n in {absent!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_every_way_to_import_is_seen() -> None:
    source = (
        "import a.b\n"
        "from c import d as e\n"
        "from . import f\n"
        "from ..g import h\n"
        "def later():\n    import i\n"
        "if TYPE_CHECKING:\n    from j import k\n"
    )
    seen = {"a.b", "c", "c.d", "p.q", "p.q.f", "p.g", "p.g.h", "i", "j", "j.k"}
    assert set(imports_of(source, "p.q.r", is_package=False)) == seen
    assert set(imports_of("from . import f", "p.q", is_package=True)) == {"p.q", "p.q.f"}
