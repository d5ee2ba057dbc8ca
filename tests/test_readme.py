"""The README says what the code does and what a run prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
from document_support import without_what_changes
from support import INSTANCE, Inventory, new_id

from cockpit_source import hooks
from cockpit_source.configuration import configured_tenants, open_project, resolve_settings
from cockpit_source.demo import run_demo
from cockpit_source.price_list import parse_price_list
from cockpit_source.sandbox import CSP_CLIENT, Sandbox
from cockpit_source.sku_catalog_file import parse_catalog

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import mart_documents
import tenant_documents
import update_readme

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_of_the_readme_are_those_of_the_code() -> None:
    """`make readme` fills them in."""
    assert update_readme.read_block("settings", TEXT) == update_readme.render_settings()


def test_tables_of_the_documents_are_those_of_the_code() -> None:
    assert update_readme.read_block("tables", TEXT) == update_readme.render_tables()
    assert update_readme.TABLES_PAGE.read_text(encoding="utf-8") == update_readme.render_tables_page()


def test_marts_of_the_documents_are_those_of_the_dbt_package() -> None:
    assert mart_documents.SOURCES_FILE.read_text(encoding="utf-8") == mart_documents.render_sources()
    assert update_readme.read_block("marts", TEXT) == mart_documents.render_mart_list()
    page = update_readme.MARTS_PAGE.read_text(encoding="utf-8")
    assert update_readme.read_block("mart-columns", page) == mart_documents.render_mart_columns()
    assert update_readme.read_block("measures", page) == mart_documents.render_measures()


def test_demo_of_the_readme_is_what_the_demo_prints() -> None:
    printed = update_readme.run_demo()
    assert _without_day_and_port(update_readme.read_block("demo", TEXT)) == _without_day_and_port(printed)


def test_no_block_of_the_readme_waits_to_be_filled() -> None:
    for name in update_readme.BLOCKS:
        page = update_readme.page_of(name).read_text(encoding="utf-8")
        assert update_readme.read_block(name, page).strip(), f"make readme, or --only {name}"


def test_walkthrough_of_the_readme_is_what_a_new_user_sees() -> None:
    printed = update_readme.run_walkthrough()
    assert without_what_changes(update_readme.read_block("walkthrough", TEXT)) == without_what_changes(printed)


def test_load_of_many_tenants_in_the_readme_is_what_it_prints() -> None:
    def compare(block: str) -> list[str]:
        """Without seconds, and the blanks that make columns of them."""
        return re.sub(r"\d+\.\d\b", "SECONDS", without_what_changes(block)).split()

    assert compare(update_readme.read_block("tenants", TEXT)) == compare(tenant_documents.run_tenants())


def test_settings_of_many_tenants_in_the_readme_work(tmp_path: Path) -> None:
    """With what a reader fills in."""
    (tmp_path / ".dlt").mkdir()
    for name in ("config.toml", "secrets.toml"):
        text = update_readme.read_code(f"tenants-{name}").replace('"..."', '"filled in"')
        (tmp_path / ".dlt" / name).write_text(text, encoding="utf-8")
    open_project(tmp_path)
    read = [resolve_settings(name) for name in configured_tenants()]
    assert [
        (one.tenant_key, one.scopes.origin, one.max_requests_per_second, one.max_drop_scopes) for one in read
    ] == [
        ("portal.north.example", "discover", 50, 10),
        ("portal.south.example", "file", 50, 50),
    ]


def test_path_of_the_readme_works_word_for_word(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its files with the sandbox's credentials in place of the reader's, and its commands as printed."""
    settings = tmp_path / ".dlt"
    settings.mkdir()
    secrets = (
        update_readme.read_code("secrets.toml").replace("...", CSP_CLIENT.id, 1).replace("...", CSP_CLIENT.secret, 1)
    )
    (settings / "secrets.toml").write_text(secrets)
    (settings / "config.toml").write_text(
        update_readme.read_code("config.toml").replace("portal.example.com", sandbox.tenant.domain)
    )
    environment = os.environ | {
        "SOURCES__COCKPIT__BASE_URL": sandbox.base_url,
        "SOURCES__COCKPIT__TOKEN_URL": sandbox.token_url,
    }
    codes = {}
    for line in update_readme.read_code("commands").splitlines():
        program, *arguments = line.removeprefix("$ ").split()
        assert program == "cockpit"
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments], cwd=tmp_path, env=environment, check=False
        )
        codes[arguments[0]] = done.returncode
    # four customers of the simulated tenant may not be read
    assert codes == {"check": 0, "load": 3, "status": 0}
    with duckdb.connect(str(tmp_path / "license_inventory.duckdb"), read_only=True) as connection:
        (scopes,) = connection.execute("SELECT count(*) FROM cockpit.scopes").fetchall()
    assert scopes == (len(list(sandbox.tenant.scopes(0))),)


def test_queries_of_the_documents_find_something_in_a_demo(tmp_path: Path) -> None:
    assert run_demo(tmp_path / "demo", 5) == 0
    read_copy = tmp_path / "demo" / "cockpit_demo.read.duckdb"
    statements = 0
    with duckdb.connect(str(read_copy), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for query in re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL):
            for statement in connection.extract_statements(query):
                assert connection.execute(statement).fetchall(), query
                statements += 1
    assert statements >= 5
    today = datetime.now(UTC).date()
    code = update_readme.read_code("seat-changes", ROOT / "docs" / "marts.md")
    for written, meant in (
        ("license_inventory.read.duckdb", str(read_copy)),
        ("date(2026, 1, 1)", _write_day(today - timedelta(days=4))),
        ("date(2026, 3, 31)", _write_day(today)),
    ):
        assert written in code
        code = code.replace(written, meant)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "new_customer" in done.stdout
    assert "contraction" in done.stdout


def _write_day(day: date) -> str:
    return f"date({day.year}, {day.month}, {day.day})"


def test_hook_of_the_readme_has_the_members_of_the_code(inventory: Inventory) -> None:
    inventory.answer(new_id(1), [])
    result = inventory.load([(new_id(1), INSTANCE, None)])
    settings = inventory.resolve([(new_id(1), INSTANCE, None)])
    assert list(json.loads(update_readme.read_code("hook"))) == list(hooks.describe(settings, result))


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    folders = [ROOT / "cockpit_source" / name for name in (".", "dashboard", "deletions", "move")]
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.py")))
    # a message that is written over several lines reads as one
    joined = re.sub(r'"\s*\n\s*f?"', "", code)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 25
    assert [message for message in messages if message not in joined] == []


def test_lists_of_the_reference_data_page_are_taken() -> None:
    page = ROOT / "docs" / "reference-data.md"
    names = ("prices.csv", "prices-semicolons.csv")
    counts = {name: parse_price_list(update_readme.read_code(name, page)) for name in names}
    assert {name: (len(rows), problems) for name, (rows, problems) in counts.items()} == {
        "prices.csv": (3, []),
        "prices-semicolons.csv": (1, []),
    }
    table = parse_catalog(update_readme.read_code("product-names.csv", page).encode(), "names.csv")
    assert (len(table.products), len(table.plans), table.notes()) == (1, 1, [])


def test_links_of_the_documents_lead_to_files() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert "://" in target or (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_command_of_the_readme_exists() -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "cockpit_source.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"`(?:\.venv/bin/)?cockpit (\w+)", TEXT)):
        assert re.search(rf"^\W*{command}\b", listing, re.MULTILINE), command
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make (\w+)`", TEXT)):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target


def _without_day_and_port(text: str) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", re.sub(r"\b\d\d [A-Z][a-z]{2}\b", "DAY", text))
