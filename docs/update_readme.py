"""Fills the blocks of README.md and pages in docs/ that come from code or runs: `make readme`, or `--only demo`.

`--only tables-page sources` writes docs/tables.md and the sources of the dbt package. A block stands between
`<!-- name -->` and `<!-- /name -->`. Blocks: `tables`, `settings`, `deletion-settings`, `marts`, `mart-columns`,
`measures` and `ledger.sql` (from the code), `demo` (what `cockpit demo` prints), `walkthrough` (what a new user
sees), `tenants` (a load of several), `deletions` and `deletions-by-hand` (a plan of deletions carried out on the
sandbox), and what the scripts in benchmarks/ print, a few minutes each: `compare` (`compare_loads.py`), `bench`
(`load_scale.py`), `startup`, `throttled`, `marts-scale`, `cost-model`, `move` (`move_history.py`) and `million`
(`million_rows.py`); `kills` (tests/prove_kills.py) takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ledger_documents
import mart_documents
import tenant_documents

from cockpit_source.deletions import settings as deletion_settings
from cockpit_source.deletions.ledger_tables import LEDGER_DATASET, LEDGER_TABLES, LedgerTable
from cockpit_source.settings import KEYS, Key
from cockpit_source.tables import REFERENCE_TABLES, TABLES, Column, Table
from cockpit_source.tenants import DATASET_KEYS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TABLES_PAGE = ROOT / "docs" / "tables.md"
DELETIONS_PAGE = ROOT / "docs" / "deletions.md"
MARTS_PAGE = ROOT / "docs" / "marts.md"
POSTGRESQL_PAGE = ROOT / "docs" / "postgresql.md"
COST_PAGE = ROOT / "docs" / "cost-model.md"


def render_settings(keys: Mapping[str, Key] = KEYS) -> str:
    """The table of settings, as Markdown."""
    lines = ["| key | valid | default |", "| --- | --- | --- |"]
    for name, key in keys.items():
        default = "" if key.default is None else f"`{key.default}`"
        secret = " (in secrets.toml)" if key.secret else ""
        shared = " (one for all tenants)" if keys is KEYS and name in DATASET_KEYS else ""
        lines.append(f"| `{name}` | {key.valid}{secret}{shared} | {default} |")
    return "\n".join(lines)


_SYNC_WORDS = {
    "merge": "merge",
    "scope delete-insert": "merge, delete-insert by scope",
    "scope scd2": "merge, scd2 by scope",
    "tenant delete-insert": "merge, delete-insert by tenant",
}


def render_tables() -> str:
    """The tables with grain, key and write disposition, as Markdown."""
    lines = ["| table | one row is | key | write disposition |", "| --- | --- | --- | --- |"]
    for table in (*TABLES.values(), *REFERENCE_TABLES.values()):
        lines.append(f"| `{table.name}` | {table.grain} | {', '.join(table.key)} | {_SYNC_WORDS[table.sync]} |")
    return "\n".join(lines)


def render_tables_page() -> str:
    """Every table with every column, as a Markdown page."""
    head = (
        "# Tables and columns\n\n"
        "Written by `make readme` from [`cockpit_source/tables.py`](../cockpit_source/tables.py); a test holds it\n"
        "against the code. The same descriptions are in dlt's schema of the pipeline. Every time is UTC. Types are\n"
        "those of DuckDB. The tables `sku_*` hold what users supply ([reference data](reference-data.md)). The last\n"
        "three are of the [deletions](deletions.md), in a dataset of their own.\n"
    )
    ledger = "".join(map(_render_ledger_table, LEDGER_TABLES.values()))
    tables = (*TABLES.values(), *REFERENCE_TABLES.values())
    return head + "".join(map(_render_table, tables)) + ledger


def _render_ledger_table(table: LedgerTable) -> str:
    return (
        f"\n## {LEDGER_DATASET}.{table.name}\n\n"
        f"{table.description} One row is {table.grain}. Key: {', '.join(table.key)}. Rows are only ever added.\n\n"
        + _render_columns(table.columns)
    )


def _render_table(table: Table) -> str:
    return (
        f"\n## {table.name}\n\n"
        f"{table.description} One row is {table.grain}. Key: {', '.join(table.key)}. "
        f"Write disposition: {_SYNC_WORDS[table.sync]}.\n\n"
        + _render_columns((*table.columns, *table.versioned_columns))
    )


def _render_columns(columns: Iterable[Column]) -> str:
    lines = ["| column | type | may be null | what it says |", "| --- | --- | --- | --- |"]
    for column in columns:
        nullable = "yes" if column.nullable else ""
        description = column.description.replace("|", "\\|")
        lines.append(f"| `{column.name}` | {_TYPES[str(column.type)]} | {nullable} | {description} |")
    return "\n".join(lines) + "\n"


_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "decimal128(18, 4)": "DECIMAL(18,4)",
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
    with start_trial() as trial:
        trial.lines += trial.announced
        for command in WALK:
            trial.run(command)
        return trial.read()


# the customer that the documents offboard, and what takes its licences and subscriptions away in the sandbox
OFFBOARDED = "491c81c8-b09d-4452-9b62-b5fa96d4041b"
APPROVED_BY = "service manager, change 4711"


def run_deletions() -> str:
    """A plan made and carried out on the sandbox, unattended, after an inventory that is not shown."""
    with start_trial() as trial:
        return carry_out_deletions(trial)


def carry_out_deletions(trial: Trial) -> str:
    """The same in a trial of the caller's."""
    _prepare_deletions(trial)
    trial.run("cockpit load --project trial")
    trial.lines = ["$ cat trial/offboard.sql", read_code("offboard.sql", DELETIONS_PAGE)]
    plan_id, plan_hash = _plan(trial)
    trial.run(f'cockpit deletions apply {plan_id} --hash {plan_hash} --approved-by "{APPROVED_BY}" --project trial')
    trial.run("cockpit deletions verify --project trial")
    trial.run("cockpit deletions log --project trial")
    return trial.read()


def run_deletions_by_hand() -> str:
    """The same from the beginning, as a person at a terminal sees it."""
    with start_trial() as trial:
        trial.lines += trial.announced
        _prepare_deletions(trial)
        trial.lines += [
            f"\n$ curl --silent --output answer.json {trial.base_url}/_sandbox/offboard \\\n"
            f'    --data \'{{"customer_ids": ["{OFFBOARDED}"]}}\''
        ]
        trial.run("cockpit load --project trial")
        trial.run("cockpit deletions plan --named customers_without_seats_90_days --project trial")
        plan_id, plan_hash = _plan(trial)
        trial.run(f"cockpit deletions apply {plan_id} --project trial", plan_hash)
        trial.run("cockpit deletions verify --project trial")
        trial.run("cockpit deletions log --project trial")
        return trial.read()


def _prepare_deletions(trial: Trial) -> None:
    """The files of docs/deletions.md, and the customer without licences and subscriptions."""
    for name in ("config.toml", "secrets.toml"):
        with (trial.project / ".dlt" / name).open("a", encoding="utf-8") as file:
            file.write("\n" + read_code(f"deletions-{name}", DELETIONS_PAGE))
    for name in ("protected.txt", "offboard.sql"):
        (trial.project / name).write_text(read_code(name, DELETIONS_PAGE), encoding="utf-8")
    body = json.dumps({"customer_ids": [OFFBOARDED]}).encode()
    with urllib.request.urlopen(f"{trial.base_url}/_sandbox/offboard", body, timeout=10):
        pass


def _plan(trial: Trial) -> tuple[str, str]:
    """Plan and show; id and hash of the plan."""
    trial.run("cockpit deletions plan --query trial/offboard.sql --project trial")
    trial.run("cockpit deletions show --project trial")
    stored = json.loads(trial.ask("cockpit deletions show --json --project trial"))
    return stored["plan_id"], stored["plan_hash"]


class Trial:
    """Commands on a sandbox, and what they print. The folder reads as the home directory."""

    def __init__(self, folder: Path, environment: Mapping[str, str], server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        self.project = folder / "trial"
        self.announced = [
            "$ cockpit sandbox --project trial   # leave it running; the rest in another terminal",
            server.stdout.readline(),
            server.stdout.readline(),
        ]
        self.base_url = re.findall(r"http://[0-9.:]+", self.announced[1])[0]
        self.lines: list[str] = []
        self._folder = folder
        self._options: dict[str, Any] = {"cwd": folder, "env": environment}

    def run(self, command: str, plan_hash: str | None = None) -> None:
        """Note a command, what it prints and how it ends; with a hash at a terminal, where it is confirmed."""
        if plan_hash is None:
            options = self._options | {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            done = subprocess.run(_split(command), check=False, **options)
            output, code = done.stdout, done.returncode
        else:
            output, code = _confirm(_split(command), plan_hash, self._options)
        self.lines += [f"\n$ {command}", output, f"(exit code {code})"]

    def ask(self, command: str) -> str:
        """What a command prints, without noting it."""
        return subprocess.run(_split(command), check=True, stdout=subprocess.PIPE, text=True, **self._options).stdout

    def read(self) -> str:
        """All that was noted, as a block."""
        text = "\n".join(line.rstrip("\n") for line in self.lines).replace(str(self._folder), "~")
        return _fence(text.replace(f"operator@{socket.gethostname()}", "operator@pc"))


@contextmanager
def start_trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as folder:
        names = {"HOME": folder, "LOGNAME": "operator", "DLT_DATA_DIR": f"{folder}/.dlt"}
        environment = os.environ | names | {"PYTHONIOENCODING": "utf-8", "TERM": "dumb", "COLUMNS": "160"}
        options: dict[str, Any] = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE}
        with subprocess.Popen(_split("cockpit sandbox --port 0 --project trial"), **options) as server:
            try:
                yield Trial(Path(folder), environment, server)
            finally:
                server.terminate()


def _split(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *arguments]


def _confirm(command: list[str], plan_hash: str, options: Mapping[str, Any]) -> tuple[str, int]:
    """Run a command at a terminal, and type what it asks for."""
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, **options) as process:
        os.close(follower)
        output = _read_until(leader, "", re.compile(r'Type "([^"]+)": '))
        os.write(leader, re.findall(r'Type "([^"]+)"', output)[0].encode() + b"\n")
        output = _read_until(leader, output, re.compile("hash: "))
        os.write(leader, plan_hash[:8].encode() + b"\n")
        output = _read_until(leader, output, None)
    os.close(leader)
    return output.replace("\r\n", "\n"), process.returncode


def _read_until(leader: int, output: str, pattern: re.Pattern[str] | None) -> str:
    while pattern is None or not pattern.search(output):
        try:
            output += os.read(leader, 100_000).decode()
        except OSError:
            # the program has ended
            break
    return output


def run_script(*scripts: str) -> str:
    """What scripts, such as a benchmark, print."""
    options: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "check": True}
    outputs = (subprocess.run([sys.executable, *script.split()], **options).stdout for script in scripts)
    return _fence("\n".join(outputs))


def read_block(name: str, text: str) -> str:
    """The content of a block, without its markers. Raises ValueError when it is not there."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"there is no block {name!r}")
    return found[1]


def read_code(name: str, page: Path = README) -> str:
    """The code in a block of a page, without its fence and indentation."""
    block = read_block(name, page.read_text(encoding="utf-8"))
    return textwrap.dedent("\n".join(block.strip().splitlines()[1:-1])) + "\n"


def replace_block(name: str, content: str, text: str) -> str:
    """`text` with the content of a block replaced."""
    read_block(name, text)
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    return text[: text.index(start)] + f"{start}\n{content}\n{end}" + text[text.index(end) + len(end) :]


def _fence(output: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in output.strip().splitlines()) + "\n```"


BLOCKS: dict[str, Callable[[], str]] = {
    "tables": render_tables,
    "settings": render_settings,
    "demo": run_demo,
    "walkthrough": run_walkthrough,
    "tenants": tenant_documents.run_tenants,
    "deletions": run_deletions,
    "deletion-settings": partial(render_settings, deletion_settings.KEYS),
    "deletions-by-hand": run_deletions_by_hand,
    "ledger.sql": ledger_documents.render_ledger_sql,
    "compare": partial(run_script, "benchmarks/compare_loads.py"),
    "bench": partial(run_script, "benchmarks/load_scale.py"),
    "startup": partial(run_script, "benchmarks/startup.py"),
    "throttled": partial(run_script, "benchmarks/throttled.py"),
    "marts-scale": partial(run_script, "benchmarks/marts_scale.py"),
    "move": partial(run_script, "benchmarks/move_history.py"),
    "cost-model": partial(run_script, "benchmarks/cost_model.py"),
    "million": partial(run_script, "benchmarks/million_rows.py"),
    "marts": mart_documents.render_mart_list,
    "mart-columns": mart_documents.render_mart_columns,
    "measures": mart_documents.render_measures,
    "kills": partial(
        run_script,
        "tests/prove_kills.py --trials 100 --scopes 2000",
        "tests/prove_kills.py --trials 100 --scopes 2000 --destination postgres",
    ),
}


# which are not in the README
PAGES = {
    "deletion-settings": DELETIONS_PAGE,
    "deletions-by-hand": DELETIONS_PAGE,
    "ledger.sql": POSTGRESQL_PAGE,
    "mart-columns": MARTS_PAGE,
    "cost-model": COST_PAGE,
    "measures": MARTS_PAGE,
}
# which are written as a whole
FILES: dict[str, tuple[Path, Callable[[], str]]] = {
    "tables-page": (TABLES_PAGE, render_tables_page),
    "sources": (mart_documents.SOURCES_FILE, mart_documents.render_sources),
}


def page_of(name: str) -> Path:
    """The page in which a block stands."""
    return PAGES.get(name, README)


def main() -> None:
    """Write the files and fill the blocks."""
    parser = argparse.ArgumentParser(description="Fill the generated blocks of the documents.")
    parser.add_argument("--only", nargs="+", choices=[*FILES, *BLOCKS], default=[*FILES, *BLOCKS])
    only = parser.parse_args().only
    for name in [name for name in only if name in FILES]:
        path, render = FILES[name]
        path.write_text(render(), encoding="utf-8")
    for name in [name for name in only if name in BLOCKS]:
        page, content = page_of(name), BLOCKS[name]()
        page.write_text(replace_block(name, content, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
