"""The quick-start notebook runs as it stands, from a folder of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.whole
def test_the_notebook_runs_from_simulated_images_to_a_view_of_a_prediction(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    stated = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert not [output for output in outputs if output.output_type == "error"]
    assert "training.steps = 20: set by hand" in stated
    assert "\nDice 0." in stated
    assert "<iframe" in outputs[-1]["data"]["text/html"]
