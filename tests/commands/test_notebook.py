"""The bundled notebook, executed as a notebook is: by a kernel of its own, with fewer steps."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "first_run.ipynb"
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]


def test_the_notebook_trains_compares_and_shows_the_credit(tmp_path: Path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert "STEPS = 20" in first.source
    first.source = first.source.replace("STEPS = 20", "STEPS = 2")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = {kind for output in outputs for kind in output.get("data", ())}
    assert {"image/png", "text/html"} <= shown
    assert any("nats" in output["data"].get("text/html", "") for output in outputs if "data" in output)
    assert (tmp_path / "runs" / "notebook-grpo" / "report.html").is_file()
