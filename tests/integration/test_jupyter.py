"""The client works in a notebook: in the kernel's thread, with its event loop running."""

from __future__ import annotations

import pytest

CELLS = (
    """
import numpy as np
import model_loader as ml
from loader_service.writer import small
context = ml.create_context()
model = ml.MLModelLoader(context).load(small.add())
print(model.compute(np.array([1], np.float32)))
""",
    """
async with await ml.aio.create_context() as other:
    twin = await ml.aio.MLModelLoader(other).load(small.add(2))
    print(await twin.compute(np.array([1], np.float32)))
""",
    """
try:
    model.compute(np.array([1], np.float64))
except ml.DataError as error:
    print(type(error).__name__)
print(model.compute(np.array([2], np.float32)))
context.close()
""",
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_both_faces_work_in_a_notebook() -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.execute()
    printed = ["".join(output["text"] for output in cell.outputs) for cell in notebook.cells]
    assert printed == ["[2.]\n", "[3.]\n", "DataError\n[3.]\n"]
