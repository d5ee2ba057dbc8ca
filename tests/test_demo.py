"""`cockpit demo` as a user runs it: a process of its own, an empty home, twice."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import duckdb
import psutil
from report_page import read_report

from cockpit_source.sandbox import SandboxTenant

FIVE_DAYS = 5


def run_demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cockpit_source.cli", "demo", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_demo_run_twice_tells_the_same_and_leaves_nothing_running(tmp_path: Path) -> None:
    first = run_demo(tmp_path)
    assert first.returncode == 0, first.stderr
    second = run_demo(tmp_path)
    assert _without_address(second.stdout) == _without_address(first.stdout)
    assert "Traceback" not in first.stderr
    started = [p.cmdline() for p in psutil.process_iter() if p.ppid() == psutil.Process().pid]
    assert not [command for command in started if "cockpit_source.cli" in command]
    for piece in ("No real data", "most unassigned seats", "forbidden", "cockpit_demo.duckdb", "cockpit load"):
        assert piece in first.stdout
    report = read_report(tmp_path / "cockpit_demo" / "report.html")
    assert "Report: cockpit_demo/report.html" in first.stdout
    assert "A simulated tenant." in report.text
    with duckdb.connect(str(tmp_path / "cockpit_demo" / "cockpit_demo.duckdb"), read_only=True) as connection:
        paid = "SELECT sum(total_seats) FROM cockpit.fct_current_inventory WHERE NOT is_free"
        assert report.figures["total_seats"].startswith(f"{connection.execute(paid).fetchall()[0][0]:,}")
        held = connection.execute("SELECT customer_id, sku_id, total_licenses FROM cockpit.licenses").fetchall()
        days = connection.execute("SELECT count(DISTINCT started_at) FROM cockpit.runs").fetchone()
    assert days == (FIVE_DAYS,)
    tenant = SandboxTenant()
    readable = [
        (row["skuId"], row["totalLicenses"], customer)
        for customer, instance, _ in tenant.scopes(FIVE_DAYS - 1)
        if (found := tenant.customer(customer)) and found.has_gdap_on(FIVE_DAYS - 1)
        for row in tenant.licenses(customer, instance, FIVE_DAYS - 1)
    ]
    left = tenant.event("customer_left")
    assert sorted((sku, total, customer) for customer, sku, total in held if customer != left.customer_id) == sorted(
        readable
    )
    assert left.customer_id in {customer for customer, _, _ in held}


def test_commands_that_the_demo_proposes_work(tmp_path: Path) -> None:
    run_demo(tmp_path, "--days", "1")
    # the port that the demo writes down may be taken on this machine
    config = tmp_path / "cockpit_demo" / ".dlt" / "config.toml"
    port = _free_port()
    assert config.read_text().count("127.0.0.1:8765") == 2
    config.write_text(config.read_text().replace("127.0.0.1:8765", f"127.0.0.1:{port}"))
    cockpit = [sys.executable, "-m", "cockpit_source.cli"]
    server = subprocess.Popen(
        [*cockpit, "sandbox", "--day", "1", "--port", str(port)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert server.stdout is not None
        assert "Simulated tenant" in server.stdout.readline()
        load = subprocess.run(
            [*cockpit, "load", "--project", "cockpit_demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    finally:
        server.terminate()
        server.wait(timeout=10)
    assert load.returncode == 3, load.stderr
    assert "forbidden" in load.stdout
    with duckdb.connect(str(tmp_path / "cockpit_demo" / "cockpit_demo.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM cockpit.runs").fetchone() == (2,)


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    refused = run_demo(tmp_path, "--folder", "mine")
    assert refused.returncode == 2
    assert "holds files that are not of a demo" in refused.stderr
    assert (tmp_path / "mine" / "file").read_text() == "keep"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _without_address(text: str) -> str:
    return re.sub(r"http://127\.0\.0\.1:\d+", "ADDRESS", text)
