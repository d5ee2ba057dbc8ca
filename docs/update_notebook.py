"""Runs the analysis notebook on the demo's database and keeps its outputs: `python docs/update_notebook.py`.

The outputs are those of the simulated tenant. What changes with every run without telling anything is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "license_analysis.ipynb"


def main() -> None:
    """Run a demo in a folder of its own, then the notebook on it."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "cockpit_demo"
        cockpit = Path(sys.executable).with_name("cockpit")
        subprocess.run([cockpit, "demo", "--folder", demo], check=True, capture_output=True)
        os.environ["COCKPIT_DATABASE"] = str(demo / "cockpit_demo.read.duckdb")
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        NotebookClient(notebook, timeout=300).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
