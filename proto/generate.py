"""Generate the protobuf modules of `client/model_loader_wire/v1` (run by `make proto`).

The tools are the oldest that the project supports: code made by newer ones refuses older
protobuf runtimes.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "client" / "model_loader_wire" / "v1"
PROTOS = ("model_loader/v1/model_loader.proto", "model_loader/v1/attach.proto")


def main() -> int:
    """Write the modules and point their imports at the package that they live in."""
    generated = TARGET.parent / "model_loader"
    code: int = protoc.main(
        [
            "protoc",
            f"-I{HERE}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={TARGET.parent}",
            f"--pyi_out={TARGET.parent}",
            f"--grpc_python_out={TARGET.parent}",
            *PROTOS,
        ]
    )
    if code:
        return code
    TARGET.mkdir(exist_ok=True)
    for made in sorted((generated / "v1").iterdir()):
        text = made.read_text().replace("from model_loader.v1", "from model_loader_wire.v1")
        if made.name == "attach_pb2_grpc.py":
            made.unlink()  # no service lives in attach.proto
            continue
        (TARGET / made.name).write_text(text)
        made.unlink()
    (generated / "v1").rmdir()
    generated.rmdir()
    (TARGET / "__init__.py").write_text('"""Generated from `proto/` by `make proto`."""\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
