"""Generate the protobuf modules of `client/model_loader_wire/v1` (run by `make proto`).

    python proto/generate.py [FOLDER]

The tools are the oldest that the project supports: code made by newer ones refuses older
protobuf runtimes.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "client" / "model_loader_wire" / "v1"
PROTOS = tuple(f"model_loader/v1/{name}.proto" for name in ("model_loader", "attach", "admin"))
NO_SERVICE = "attach_pb2_grpc.py"
"""Made by the tools although attach.proto declares no service."""


def generate(target: Path) -> int:
    """Write the modules into `target`, with imports that point at the package they live in."""
    with TemporaryDirectory() as made:
        code: int = protoc.main(
            [
                "protoc",
                f"-I{HERE}",
                f"-I{files('grpc_tools') / '_proto'}",
                f"--python_out={made}",
                f"--pyi_out={made}",
                f"--grpc_python_out={made}",
                *PROTOS,
            ]
        )
        if code:
            return code
        target.mkdir(parents=True, exist_ok=True)
        for module in sorted(Path(made, "model_loader", "v1").iterdir()):
            if module.name != NO_SERVICE:
                text = module.read_text(encoding="utf-8")
                text = text.replace("from model_loader.v1", "from model_loader_wire.v1")
                (target / module.name).write_text(text, encoding="utf-8")
    package = '"""Generated from `proto/` by `make proto`."""\n'
    (target / "__init__.py").write_text(package, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
