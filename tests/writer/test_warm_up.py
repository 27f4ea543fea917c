"""The warm-up model is the one that the writer makes, and reading it imports nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from loader_service.writer import warm_up, warm_up_model

from .running import Runtime, call


def test_the_text_holds_what_the_writer_makes() -> None:
    assert warm_up.warm_up_model() == warm_up_model.make()
    assert Path(warm_up.__file__).read_text() == warm_up_model.source()


def test_it_computes_on_both_runtimes(runtime: Runtime) -> None:
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    (y,) = runtime.run(warm_up.warm_up_model(), image)
    assert y.tolist() == [[2 * image.sum()] * 2]


def test_xnnpack_takes_it(runtime: Runtime) -> None:
    interpreter = runtime.interpreter(warm_up.warm_up_model())
    call(interpreter, np.zeros((1, 4, 4, 1)))
    operators = [detail["op_name"] for detail in interpreter._get_ops_details()]
    assert "DELEGATE" in operators


def test_reading_it_imports_neither_writer_nor_numpy() -> None:
    script = (
        "import sys\n"
        "from loader_service.writer.warm_up import warm_up_model\n"
        "assert warm_up_model()[4:8] == b'TFL3'\n"
        "print([name for name in ('flatbuffers', 'numpy') if name in sys.modules])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=root, check=True)
    assert done.stdout.strip() == b"[]"
