"""The README says what the code does and what a run prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import update_readme

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_of_the_readme_are_those_of_the_code() -> None:
    """`make readme` fills them in."""
    assert update_readme.read_block("settings", TEXT) == update_readme.render_settings()


def test_tables_of_the_documents_are_those_of_the_code() -> None:
    assert update_readme.read_block("tables", TEXT) == update_readme.render_tables()
    assert update_readme.TABLES_PAGE.read_text(encoding="utf-8") == update_readme.render_tables_page()


def test_demo_of_the_readme_is_what_the_demo_prints() -> None:
    printed = update_readme.run_demo()
    assert _without_day_and_port(update_readme.read_block("demo", TEXT)) == _without_day_and_port(printed)


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
