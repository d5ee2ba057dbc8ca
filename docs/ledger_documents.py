"""What docs/postgresql.md takes from the code of the ledger: the SQL with which an administrator makes its tables."""

from __future__ import annotations

import textwrap

from cockpit_source.deletions.ledger_store import define_table
from cockpit_source.deletions.ledger_tables import LEDGER_DATASET, LEDGER_TABLES


def render_ledger_sql() -> str:
    """The ledger of the deletions in PostgreSQL, to which its role can only add, as SQL."""
    lines = ["CREATE SCHEMA cockpit_deletions;"]
    for table in LEDGER_TABLES.values():
        statement = define_table(table, f"{LEDGER_DATASET}.{table.name}")
        lines.append(textwrap.fill(f"{statement};", 116, subsequent_indent="    "))
    lines += [
        f"GRANT USAGE ON SCHEMA {LEDGER_DATASET} TO cockpit_deleter;",
        f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA {LEDGER_DATASET} TO cockpit_deleter;",
    ]
    return "```sql\n" + "\n".join(lines) + "\n```"
