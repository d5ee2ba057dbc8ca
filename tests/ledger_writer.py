"""A process that opens a ledger and appends to it without end, to be killed: `ledger_writer.py KIND FOLDER NAME`.

It waits for a line before it opens the ledger, and prints the number and correlation id of each record after `append`
returned it.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import duckdb
import psycopg2

from cockpit_source.deletions.ledger import open_ledger
from cockpit_source.pipeline import create_pipeline


def append_without_end(kind: str, folder: Path, name: str) -> None:
    database = folder / "inventory.duckdb" if kind == "duckdb" else None
    pipeline = create_pipeline("csp.example", destination=kind, database=database)
    # imports what the drivers import when they are first used
    duckdb.execute("SELECT ?", [datetime.now(UTC)]).fetchall()
    assert psycopg2.apilevel
    os.write(1, b"ready\n")
    sys.stdin.readline()
    with open_ledger(pipeline, folder) as ledger:
        for number in count():
            plan_id = f"{name}-{number}"
            if number % 5 == 0:
                items = [{"number": item, "candidate": {"reason": "x" * 200}} for item in range(1, 6)]
                body = {"plan": {"items": items}, "plan_hash": name}
                ledger.append("plan", at=datetime.now(UTC), actor=name, plan_id=plan_id, body=body)
            record = ledger.append(
                "intent", at=datetime.now(UTC), actor=name, correlation_id=plan_id, body={"x": "y" * number}
            )
            os.write(1, f"{record.seq} {record.correlation_id}\n".encode())


if __name__ == "__main__":
    append_without_end(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
