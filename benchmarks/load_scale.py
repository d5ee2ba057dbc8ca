"""Seconds and peak memory of `cockpit load` against the sandbox: `python benchmarks/load_scale.py`.

Loads a simulated tenant of about 4,000 scopes and 50,000 licence rows, then one of ten times that, each in a process
of its own, with every answer of the sandbox 20 ms late. Peak memory is the maximum resident set of the load alone,
not of the sandbox. Sandbox and load share the machine, so the seconds say what this machine does, not what a real
tenant allows. Prints a table, and the ratio of the two peaks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import load_command, run_measured, sandbox_project


def measure(scopes: int, latency_ms: float, loads: int = 1) -> list[dict[str, Any]]:
    """Load a tenant of about `scopes` scopes `loads` times into one database; a record per load."""
    with sandbox_project(scopes, latency_ms) as (project, _):
        return [_load(project) for _ in range(loads)]


def _load(project: Path) -> dict[str, Any]:
    measured = run_measured(load_command(project, "--json"), {"DLT_DATA_DIR": str(project / "dlt")})
    record: dict[str, Any] = json.loads(measured.output)
    return record | {"peak_mib": measured.peak_mib, "cpu_seconds": measured.cpu_seconds}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scopes", type=int, nargs="+", default=[4_000, 40_000])
    parser.add_argument("--latency-ms", type=float, default=20)
    arguments = parser.parse_args()
    print("simulated tenant (sandbox), all processes on this machine")
    print(f"{'scopes':>8} {'rows':>9} {'load':>7} {'seconds':>8} {'calls/s':>8} {'CPU s':>7} {'peak MiB':>9}")
    peaks = []
    for scopes in arguments.scopes:
        records = measure(scopes, arguments.latency_ms, loads=2)
        for name, record in zip(("first", "second"), records, strict=True):
            print(
                f"{record['scopes_total']:>8,} {record['license_rows']:>9,} {name:>7} {record['seconds']:>8.1f} "
                f"{record['requests'] / record['seconds']:>8.0f} {record['cpu_seconds']:>7.1f} "
                f"{record['peak_mib']:>9.0f}",
                flush=True,
            )
        peaks.append(max(record["peak_mib"] for record in records))
    for scopes, peak in zip(arguments.scopes[1:], peaks[1:], strict=True):
        print(f"peak memory of {scopes:,} scopes / {arguments.scopes[0]:,} scopes: {peak / peaks[0]:.2f}")


if __name__ == "__main__":
    main()
