"""What is written about the marts: dbt's `sources.yml` from tables.py, and pages from the YAML of the dbt package."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from cockpit_source.marts import MartOptions, is_public, render_marts
from cockpit_source.tables import REFERENCE_TABLES, TABLES, Table

PACKAGE = Path(__file__).parent.parent / "cockpit_source" / "marts" / "dbt"
SOURCES_FILE = PACKAGE / "models" / "sources.yml"
DESCRIPTIONS_FILE = PACKAGE / "models" / "marts.yml"

_SOURCES_HEAD = """\
# Written by `make readme` from cockpit_source/tables.py; a test holds it against the code.
version: 2

sources:
  - name: cockpit
    description: What `cockpit load` and `cockpit marts` write. Every time is UTC.
    database: "{{ var('cockpit_database', target.database) }}"
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


@dataclass(frozen=True, slots=True)
class Described:
    """What `marts.yml` says of a model or seed. The first two sentences of its description are grain and question."""

    name: str
    grain: str
    question: str
    more: str
    key: tuple[str, ...]
    columns: dict[str, str]
    never_null: frozenset[str]


def read_descriptions() -> list[Described]:
    """The models and seeds of the package, in the order of the file."""
    parsed = yaml.safe_load(DESCRIPTIONS_FILE.read_text(encoding="utf-8"))
    return [_read_model(model) for model in (*parsed["models"], *parsed["seeds"])]


def _read_model(model: dict[str, Any]) -> Described:
    found = re.fullmatch(r"One row is (.+?)\. (.+?\?)(?: (.+))?", model["description"].strip(), re.DOTALL)
    if found is None:
        raise ValueError(f"the description of {model['name']} does not begin with grain and question")
    grain, question, more = found.groups(default="")
    tests = {name: test[name]["arguments"]["columns"] for test in model["data_tests"] for name in test}
    columns = {column["name"]: column["description"].strip() for column in model["columns"]}
    return Described(model["name"], grain, question, more, tuple(tests["grain"]), columns, frozenset(tests["filled"]))


def render_mart_list() -> str:
    """The marts for readers, and what each answers, as Markdown."""
    lines = ["| view | one row is | answers |", "| --- | --- | --- |"]
    lines += [
        f"| `{mart.name}` | {mart.grain} | {mart.question} |" for mart in read_descriptions() if is_public(mart.name)
    ]
    return "\n".join(lines)


def render_mart_columns() -> str:
    """Every mart with every column, as Markdown; of those that serve others only what they are."""
    marts = read_descriptions()
    inner = [
        f"* `{mart.name}`: one row is {mart.grain}. {mart.question}" for mart in marts if not is_public(mart.name)
    ]
    public = [_render_mart(mart) for mart in marts if is_public(mart.name)]
    return "\n\n".join([*public, "### Views that serve the others", "\n".join(inner)])


def _render_mart(mart: Described) -> str:
    text = f"**{mart.question}** {mart.more}".strip()
    lines = [
        f"### {mart.name}\n\n{text}\n\nOne row is {mart.grain}. Key: {', '.join(mart.key)}.\n",
        "| column | may be NULL | what it says |",
        "| --- | --- | --- |",
    ]
    for name, description in mart.columns.items():
        nullable = "" if name in mart.never_null else "yes"
        lines.append(f"| `{name}` | {nullable} | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def render_measures() -> str:
    """The rows of the view `metrics`, without their SQL, as Markdown."""
    (sql,) = (mart.sql for mart in render_marts(MartOptions(), str) if mart.name == "metrics")
    rows = duckdb.sql(f"SELECT metric, unit, grain, definition FROM ({sql})").fetchall()
    lines = ["| measure | unit | one value for each | definition |", "| --- | --- | --- | --- |"]
    lines += [f"| `{metric}` | {unit} | {grain} | {definition} |" for metric, unit, grain, definition in rows]
    return "\n".join(lines)
