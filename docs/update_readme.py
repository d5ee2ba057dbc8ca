"""Fills the blocks of README.md that come from the code or from a run: `make readme`, or `--only settings demo`.

Writes docs/tables.md too. A block stands between `<!-- name -->` and `<!-- /name -->`. Blocks: `tables` and
`settings` (from the code), `demo` (what `cockpit demo` prints), `walkthrough` (what a new user sees), and what the
scripts in benchmarks/ print, a few minutes each: `compare` (`compare_loads.py`), `bench` (`load_scale.py`),
`startup`, `throttled` and `million` (`million_rows.py`); `kills` (tests/prove_kills.py) takes half an hour.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from cockpit_source.settings import KEYS
from cockpit_source.tables import TABLES, Table

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TABLES_PAGE = ROOT / "docs" / "tables.md"


def render_settings() -> str:
    """The table of settings, as Markdown."""
    lines = ["| key | valid | default |", "| --- | --- | --- |"]
    for name, key in KEYS.items():
        default = "" if key.default is None else f"`{key.default}`"
        secret = " (in secrets.toml)" if key.secret else ""
        lines.append(f"| `{name}` | {key.valid}{secret} | {default} |")
    return "\n".join(lines)


_SYNC_WORDS = {
    "merge": "merge",
    "scope delete-insert": "merge, delete-insert by scope",
    "scope scd2": "merge, scd2 by scope",
}


def render_tables() -> str:
    """The tables with grain, key and write disposition, as Markdown."""
    lines = ["| table | one row is | key | write disposition |", "| --- | --- | --- | --- |"]
    for table in TABLES.values():
        lines.append(f"| `{table.name}` | {table.grain} | {', '.join(table.key)} | {_SYNC_WORDS[table.sync]} |")
    return "\n".join(lines)


def render_tables_page() -> str:
    """Every table with every column, as a Markdown page."""
    head = (
        "# Tables and columns\n\n"
        "Written by `make readme` from [`cockpit_source/tables.py`](../cockpit_source/tables.py); a test holds it\n"
        "against the code. The same descriptions are in dlt's schema of the pipeline. Every time is UTC. Types are\n"
        "those of DuckDB.\n"
    )
    return head + "".join(map(_render_table, TABLES.values()))


def _render_table(table: Table) -> str:
    lines = [
        f"\n## {table.name}\n",
        f"{table.description} One row is {table.grain}. Key: {', '.join(table.key)}. "
        f"Write disposition: {_SYNC_WORDS[table.sync]}.\n",
        "| column | type | may be null | what it says |",
        "| --- | --- | --- | --- |",
    ]
    for column in (*table.columns, *table.versioned_columns):
        nullable = "yes" if column.nullable else ""
        description = column.description.replace("|", "\\|")
        lines.append(f"| `{column.name}` | {_TYPES[str(column.type)]} | {nullable} | {description} |")
    return "\n".join(lines) + "\n"


_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def run_demo() -> str:
    """What `cockpit demo` prints, with the commands as they read after `make demo`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cockpit_source.cli", "demo"]
        output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return _fence(output)


# what the README lets a new user type, after `cockpit sandbox --project trial` in another terminal
WALK = ("cockpit check --project trial", "cockpit load --project trial", "cockpit status --project trial")


def run_walkthrough() -> str:
    """What a new user sees on the sandbox, from an empty folder; the folder reads as the home directory."""
    program = str(Path(sys.executable).with_name("cockpit"))
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"DLT_DATA_DIR": f"{folder}/.dlt", "HOME": folder, "PYTHONIOENCODING": "utf-8"}
        options: dict[str, Any] = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE}
        serve = "cockpit sandbox --port 0 --project trial"
        lines = ["$ cockpit sandbox --project trial   # leave it running; the rest in another terminal"]
        with subprocess.Popen([program, *serve.split()[1:]], **options) as server:
            assert server.stdout is not None
            lines += [server.stdout.readline(), server.stdout.readline()]
            for command in WALK:
                done = subprocess.run(
                    [program, *command.split()[1:]], check=False, stderr=subprocess.STDOUT, **options
                )
                lines += [f"\n$ {command}", done.stdout, f"(exit code {done.returncode})"]
            server.terminate()
        return _fence("\n".join(line.rstrip("\n") for line in lines).replace(folder, "~"))


def run_script(*scripts: str) -> str:
    """What scripts, such as a benchmark, print."""
    options: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "check": True}
    outputs = (subprocess.run([sys.executable, *script.split()], **options).stdout for script in scripts)
    return _fence("\n".join(outputs))


def read_block(name: str, text: str) -> str:
    """The content of a block, without its markers. Raises ValueError when it is not there."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no block {name!r}")
    return found[1]


def replace_block(name: str, content: str, text: str) -> str:
    """`text` with the content of a block replaced."""
    read_block(name, text)
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return text[: text.index(start)] + f"{start}\n{content}\n{end}" + text[text.index(end) + len(end) :]


def _fence(output: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in output.strip().splitlines()) + "\n```"


BLOCKS = {
    "tables": render_tables,
    "settings": render_settings,
    "demo": run_demo,
    "walkthrough": run_walkthrough,
    "compare": partial(run_script, "benchmarks/compare_loads.py"),
    "bench": partial(run_script, "benchmarks/load_scale.py"),
    "startup": partial(run_script, "benchmarks/startup.py"),
    "throttled": partial(run_script, "benchmarks/throttled.py"),
    "million": partial(run_script, "benchmarks/million_rows.py"),
    "kills": partial(
        run_script,
        "tests/prove_kills.py --trials 100 --scopes 2000",
        "tests/prove_kills.py --trials 100 --scopes 2000 --destination postgres",
    ),
}


def main() -> None:
    """Fill the blocks."""
    parser = argparse.ArgumentParser(description="Fill the generated blocks of README.md.")
    parser.add_argument("--only", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    TABLES_PAGE.write_text(render_tables_page(), encoding="utf-8")
    for name in parser.parse_args().only:
        README.write_text(replace_block(name, BLOCKS[name](), README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
