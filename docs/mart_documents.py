"""What is written about the marts: dbt's `sources.yml` from tables.py, and pages from the YAML of the dbt package."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from cockpit_source.tables import REFERENCE_TABLES, TABLES, Table

PACKAGE = Path(__file__).parent.parent / "cockpit_source" / "marts" / "dbt"
SOURCES_FILE = PACKAGE / "models" / "sources.yml"

_SOURCES_HEAD = """\
# Written by `make readme` from cockpit_source/tables.py; a test holds it against the code.
version: 2

sources:
  - name: cockpit
    description: What `cockpit load` and `cockpit marts` write. Every time is UTC.
    schema: "{{ var('cockpit_dataset') }}"
    tables:
"""


def render_sources() -> str:
    """Every table of the dataset as a source of dbt, as YAML."""
    tables = (*TABLES.values(), *REFERENCE_TABLES.values())
    return _SOURCES_HEAD + "".join(f"{line}\n" for table in tables for line in _source_table(table))


def _source_table(table: Table) -> Iterator[str]:
    yield f"      - name: {table.name}"
    text = f"{table.description} One row is {table.grain}. Key: {', '.join(table.key)}."
    yield from _description(text, " " * 8)
    yield " " * 8 + "columns:"
    for column in (*table.columns, *table.versioned_columns):
        yield f"          - name: {column.name}"
        yield from _description(column.description, " " * 12)


def _description(text: str, indent: str) -> Iterator[str]:
    """Folded, so that nothing in the text has to be quoted."""
    yield f"{indent}description: >-"
    yield from textwrap.wrap(text, 116, initial_indent=indent + "  ", subsequent_indent=indent + "  ")
