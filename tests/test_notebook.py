"""The analysis notebook: it runs on a demo's database, says what it needs, and what is kept of it is small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cockpit_source.demo import run_demo
from cockpit_source.sandbox import SandboxTenant

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "license_analysis.ipynb"
# of a picture in a notebook too
MAX_BYTES = 200_000


def run_notebook(database: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", NOTEBOOK]
    environment = os.environ | {"COCKPIT_DATABASE": str(database)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook") / "cockpit_demo"
    assert run_demo(folder, 3) == 0
    return folder / "cockpit_demo.read.duckdb"


def test_it_runs_on_a_demo(demo: Path) -> None:
    ran = run_notebook(demo)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


def test_it_says_what_is_missing(tmp_path: Path) -> None:
    ran = run_notebook(tmp_path / "none.duckdb")
    assert ran.returncode == 1
    assert "none.duckdb: run `make demo`, or set COCKPIT_DATABASE." in ran.stdout


def test_what_is_kept_is_small_and_of_the_simulated_tenant() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert len(outputs) > 10
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    invented = {customer.company_name for customer in SandboxTenant().customers}
    named = next(
        "".join(output["data"]["text/plain"])
        for cell in notebook["cells"]
        if "FROM fct_reclaimable_seats" in "".join(cell["source"])
        for output in cell["outputs"]
    )
    rows = named.splitlines()[1:11]
    assert all(any(name in row for name in invented) for row in rows)
