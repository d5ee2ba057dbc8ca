"""A real browser for the tests: Debian's Chromium, headless, and a dashboard served by the command in a process."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SCREENSHOTS = Path(__file__).parent / "screenshots"
WIDTHS = (1400, 400)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

_PROGRAMS = ("chromium", "chromium-browser")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_HOME = ("127.0.0.1", "localhost", "::1")
# pages look for news every ten seconds, and the machine may be busy
_PATIENCE_MS = 45_000


def find_chromium() -> str | None:
    """The program, where there is one."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless Chromium; without one the test is skipped, but not in CI."""
    program = find_chromium()
    if program is None:
        reason = "Chromium is missing (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page and everything that it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def foreign_requests(self) -> list[str]:
        """Requests that would leave this machine, or tried to."""
        return [address for address in self.requests if not _is_local(address)]

    def open_tab(self, name: str) -> None:
        """Choose a tab and wait until its page is there."""
        self.page.get_by_role("button", name=name, exact=True).click()
        self.page.locator(f'main[aria-label="{name}"]').wait_for()

    def figure(self, name: str) -> str:
        """The value that a card, or a marked number in a sentence, shows."""
        card = self.page.locator(f'[data-figure="{name}"]')
        card.wait_for()
        value = card.locator(".ck-value")
        return (value if value.count() else card).inner_text()

    def text(self, name: str) -> str:
        """All that a card says."""
        return self.page.locator(f'[data-figure="{name}"]').inner_text()

    def wait_for_figure(self, name: str, value: str) -> None:
        """Until a card shows `value`."""
        self.page.locator(f'[data-figure="{name}"] .ck-value').get_by_text(value, exact=True).wait_for()

    def choose(self, label: str, option: str) -> None:
        """Choose from a list."""
        self.page.get_by_label(label, exact=True).select_option(label=option)

    def choose_searched(self, label: str, option: str) -> None:
        """Choose from a long list by typing a part of it."""
        self.page.get_by_label(label, exact=True).click()
        self.page.keyboard.type(option)
        self.page.get_by_role("option", name=option, exact=True).first.click()

    def choose_day(self, label: str, day: date) -> None:
        """Type a day, as people in Britain do."""
        fields = self.page.locator(".mo-label").filter(has_text=label).get_by_role("spinbutton").all()
        for entry, digits in zip(fields, (f"{day:%d}", f"{day:%m}", f"{day:%Y}"), strict=True):
            if entry.inner_text() != digits:
                entry.click()
                self.page.keyboard.type(digits)

    def table(self) -> list[dict[str, str]]:
        """The rows that the first table shows, by the names of its columns."""
        table = self.page.locator("marimo-table table").first
        table.locator("tbody tr").first.wait_for()
        names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
        rows = table.locator("tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def download(self) -> list[dict[str, str]]:
        """The rows of the CSV of the first table."""
        with self.page.expect_download() as started:
            self.page.get_by_text("Download CSV").first.click()
        text = started.value.path().read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    def settle(self) -> None:
        """Until charts and tables have come in."""
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(300)


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    *,
    width: int = 1400,
    height: int = 1000,
    scheme: Literal["light", "dark"] = "light",
    ready: str = "[data-figure], .ck-notice",
) -> Iterator[Visit]:
    """A fresh page at `address`, once it shows something."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True, locale="en-GB"
    )
    context.set_default_timeout(_PATIENCE_MS)
    visit = Visit(context.new_page())
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    visit.page.on("websocket", lambda socket: visit.requests.append(socket.url))
    visit.page.on("console", lambda message: _note(visit, message))
    visit.page.on("pageerror", lambda error: visit.complaints.append(f"error: {error}"))
    try:
        visit.page.goto(address)
        visit.page.locator(ready).first.wait_for()
        yield visit
    finally:
        context.close()


def _note(visit: Visit, message: Any) -> None:
    if message.type == "error":
        visit.complaints.append(message.text)


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("data", "blob", "about") or parts.hostname in _HOME


@dataclass(frozen=True)
class Served:
    """A dashboard that runs in a process of its own."""

    address: str
    process: subprocess.Popen[str]
    log: Path

    def stop(self) -> int:
        """Ctrl+C; the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=15)


@contextmanager
def served_dashboard(
    database: Path, *options: str, program: Sequence[str] = (), **environment: str
) -> Iterator[Served]:
    """`cockpit dashboard` of `database` on a free port, until the context ends."""
    command = [*(program or (sys.executable, "-m", "cockpit_source.cli")), "dashboard", "--no-browser", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with log.open("w") as target:
            process = subprocess.Popen(
                [*command, "--database", str(database), *options],
                cwd=folder,
                env=os.environ | {"HOME": folder, "DLT_DATA_DIR": folder} | environment,
                stdout=subprocess.PIPE,
                stderr=target,
                text=True,
            )
        served = Served(_read_address(process, log), process, log)
        try:
            yield served
        finally:
            served.stop()
            assert process.stdout is not None
            process.stdout.close()


def _read_address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        process.kill()
        process.wait()
        pytest.fail(f"the dashboard did not start: {line}{log.read_text()}")
    return found.group()
