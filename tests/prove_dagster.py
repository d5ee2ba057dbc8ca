"""Proof with Dagster's own daemon: `python tests/prove_dagster.py`.

The daemon of an instance with `pipelines/schedules/dagster.yaml` gets a backfill of all partitions, two simulated
tenants, and runs what the automation conditions ask for after it. The tables have to be those of `cockpit load`, and
no two loads may have run at a time. Exits with 1 where they are not.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb
from dagster_world import ROOT, SEEDS, read_tables, write_project

from cockpit_source.sandbox import SandboxTenant, running_sandbox

DEFINITIONS = str(ROOT / "pipelines" / "dagster_definitions.py")
PATIENCE_SECONDS = 600
# of which only whether they are filled can be compared
TIMES = (
    "delisted_at",
    "finished_at",
    "first_seen_at",
    "last_good_at",
    "observed_at",
    "removed_at",
    "started_at",
    "valid_from",
    "valid_to",
)


def main() -> int:
    """One proof, in folders of its own."""
    folder = Path(tempfile.mkdtemp(prefix="dagster-"))
    project, home = folder / "project", folder / "home"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "pipelines" / "schedules" / "dagster.yaml", home)
    os.environ |= {"DAGSTER_HOME": str(home), "COCKPIT_PROJECT": str(project), "DLT_DATA_DIR": str(folder / "dlt")}
    try:
        with ExitStack() as stack:
            tenants = {name: SandboxTenant(seed, customers=12) for name, seed in SEEDS.items()}
            apis = {name: stack.enter_context(running_sandbox(tenant)) for name, tenant in tenants.items()}
            write_project(project, apis, lock_wait_seconds=30)
            began = time.monotonic()
            # before the daemon: only one process may create the storage of an instance
            run("dagster", "sensor", "start", "default_automation_condition_sensor", "-f", DEFINITIONS)
            with running_daemon(home):
                wait_until(lambda: "Finished auto-materialization tick" in (home / "log").read_text())
                partitions = ",".join(SEEDS)
                run(
                    "dagster",
                    "job",
                    "backfill",
                    "-j",
                    "load",
                    "-f",
                    DEFINITIONS,
                    "--partitions",
                    partitions,
                    "--noprompt",
                )
                wait_until(lambda: (project / "report.html").exists())
            seconds = time.monotonic() - began
            command = [sys.executable, "-m", "cockpit_source.cli", "load", "--project", str(project)]
            subprocess.run([*command, "--database", str(folder / "other.duckdb")], capture_output=True, check=False)
            return report(project / "w.duckdb", folder / "other.duckdb", seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(database: Path, other: Path, seconds: float) -> int:
    """What the two databases hold, and whether the loads took turns."""
    ours, theirs = read_tables(database, TIMES), read_tables(other, TIMES)
    different = [name for name in theirs if ours.get(name) != theirs[name]]
    with duckdb.connect(str(database), read_only=True) as connection:
        spans = connection.execute("SELECT started_at, finished_at FROM cockpit.runs ORDER BY started_at").fetchall()
    overlaps = sum(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))
    rows = sum(map(len, theirs.values()))
    print(f"{len(SEEDS)} simulated tenants (sandbox), backfill of all partitions by dagster-daemon: {seconds:.0f} s")
    print(f"{len(theirs)} tables of {rows} rows; different from cockpit load: {', '.join(different) or 'none'}")
    print(f"loads at a time with another: {overlaps}")
    return int(bool(different or overlaps or len(spans) != len(SEEDS)))


@contextmanager
def running_daemon(home: Path) -> Iterator[None]:
    """dagster-daemon, which serves the definitions too; its log is in `home`."""
    with (home / "log").open("w") as log:
        daemon = subprocess.Popen([program("dagster-daemon"), "run", "-f", DEFINITIONS], stdout=log, stderr=log)
        try:
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)


def run(name: str, *arguments: str) -> None:
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} {arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
