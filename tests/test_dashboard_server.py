"""Serving the dashboard: who may look, what it says without data, and that it never stands in the way of a load."""

from __future__ import annotations

import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
import requests
from browser import Served, Visit, running_browser, served_dashboard, visiting
from dashboard_world import build_marts, load_days, publish
from ledger_support import append_story
from playwright.sync_api import Browser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cockpit_source.dashboard import guard, words
from cockpit_source.dashboard.ledger_copy import ledger_path
from cockpit_source.deletions.ledger import open_ledger
from cockpit_source.deletions.ledger_place import ledger_place
from cockpit_source.pipeline import create_pipeline
from cockpit_source.publish import read_copy_path

ROOT = Path(__file__).parent.parent
CLI = (sys.executable, "-m", "cockpit_source.cli")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A dashboard on loopback; no test gives it a database."""
    with served_dashboard(tmp_path_factory.mktemp("bare") / "none.duckdb") as dashboard:
        yield dashboard


def run(*options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*CLI, "dashboard", "--no-browser", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


# ---- from nothing to figures, without a restart


def test_page_follows_the_database_from_nothing_to_figures(browser: Browser, tmp_path: Path) -> None:
    """Missing, unpublished, empty, unbuilt, ready, replaced: each says what comes next, and gives way by itself."""
    database = tmp_path / "inventory.duckdb"
    copy = read_copy_path(database)
    with served_dashboard(database) as served, visiting(browser, served.address) as visit:
        _expect(visit, "There is no database", "cockpit load")
        with duckdb.connect(str(database)):
            pass
        _expect(visit, "No copy to read was published yet", "cockpit marts")
        publish(database)
        _expect(visit, "Nothing was loaded yet", "cockpit load")
        database.unlink()
        load_days(database, ((1, 0),))
        _expect(visit, "The marts are not built", "cockpit marts")
        build_marts(database)
        visit.page.locator('[data-figure="total_seats"]').wait_for()
        seats = visit.figure("total_seats")
        # as a load does it, while the page is open
        with duckdb.connect(str(database)) as connection:
            connection.execute("UPDATE cockpit.licenses SET total_licenses = total_licenses + 1")
        publish(database)
        with duckdb.connect(str(copy), read_only=True) as connection:
            sql = "SELECT sum(total_seats) FROM cockpit.fct_current_inventory WHERE NOT is_free"
            (wanted,) = connection.execute(sql).fetchall()
        assert words.count(*wanted) != seats
        visit.wait_for_figure("total_seats", words.count(*wanted))
        copy.write_bytes(b"this is no database")
        _expect(visit, "The database cannot be read", "cockpit load")
        assert visit.complaints == []
        assert visit.foreign_requests == []


def _expect(visit: Visit, title: str, command: str) -> None:
    notice = visit.page.locator(".ck-notice").filter(has_text=title)
    notice.wait_for()
    assert notice.locator("code").inner_text() == command


def test_terminal_says_what_the_page_says(browser: Browser, tmp_path: Path) -> None:
    database = tmp_path / "inventory.duckdb"
    load_days(database, ((1, 0),))
    with served_dashboard(database) as served, visiting(browser, served.address) as visit:
        told = served.log.read_text()
        assert told.startswith(f"The marts are not built. {read_copy_path(database)} holds what was loaded, ")
        assert "Run `cockpit marts`, with the same --project and --database. Missing: attention, checks, " in told
        _expect(visit, "The marts are not built", "cockpit marts")
    build_marts(database)
    with served_dashboard(database) as served, visiting(browser, served.address) as visit:
        visit.page.locator('[data-figure="total_seats"]').wait_for()
        assert served.log.read_text() == ""


def test_ledger_is_shown_and_never_held(browser: Browser, tmp_path: Path) -> None:
    database = tmp_path / "inventory.duckdb"
    load_days(database, ((1, 0),))
    build_marts(database)
    pipeline = create_pipeline("csp.example", database=database)
    assert ledger_place(pipeline).database == ledger_path(database)
    # its text holds characters of many scripts
    with open_ledger(pipeline, tmp_path) as ledger:
        append_story(ledger)
        # while a command of the deletions has it open for writing
        with served_dashboard(database) as served, visiting(browser, served.address) as visit:
            visit.open_tab("Deletions")
            assert [visit.figure(f"ledger_{name}") for name in ("plans", "deletions", "events")] == ["1", "2", "7"]
            assert [(row["item"], row["last_result"]) for row in visit.download()] == [
                ("1", "verified"),
                ("2", "already_absent"),
            ]
            assert visit.complaints == []


# ---- who may look


def test_loopback_needs_no_token_and_answers_no_other_site(served: Served) -> None:
    found = requests.get(served.address, timeout=10)
    assert found.status_code == 200
    assert found.headers["content-security-policy"] == guard.CONTENT_SECURITY_POLICY
    assert "access-control-allow-origin" not in found.headers
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        for path in ("", "favicon.ico", "api/status", "health"):
            refused = requests.get(served.address + path, headers=headers, timeout=10)
            assert refused.status_code == 403, (headers, path)
    with pytest.raises(InvalidStatus, match="403"):
        connect(_websocket(served.address), origin="http://evil.example")  # type: ignore[arg-type]


def test_other_addresses_need_the_token_that_is_printed(browser: Browser, tmp_path: Path) -> None:
    with served_dashboard(tmp_path / "none.duckdb", "--host", "0.0.0.0") as served:
        path, _, token = served.address.partition("?access_token=")
        assert len(token) >= 32
        address = f"http://127.0.0.1:{path.rstrip('/').rpartition(':')[2]}/"
        for wrong in ("", "?access_token=wrong", f"?access_token={token[:-1]}"):
            found = requests.get(address + wrong, timeout=10)
            assert "auth/login" in found.url, wrong
            assert "marimo-filename" not in found.text
        for path in ("api/status", "api/version", "@file/1-x.csv", "assets/../api/status"):
            assert requests.get(address + path, timeout=10, allow_redirects=False).status_code >= 300, path
        with pytest.raises(InvalidStatus):
            connect(_websocket(address))
        with visiting(browser, f"{address}?access_token={token}") as visit:
            assert token not in visit.page.url
            assert visit.foreign_requests == []


def test_token_of_the_environment_is_used_on_loopback_too(tmp_path: Path) -> None:
    token = "a token of my own"
    with served_dashboard(tmp_path / "none.duckdb", COCKPIT_DASHBOARD_TOKEN=token) as served:
        assert "auth/login" in requests.get(served.address.partition("?")[0], timeout=10).url
        assert requests.get(served.address, timeout=10).status_code == 200


def _websocket(address: str) -> str:
    return f"{address.replace('http', 'ws', 1)}ws?session_id=s_123456"


# ---- the command


def test_ctrl_c_ends_it_quietly_while_a_page_is_open(browser: Browser, tmp_path: Path) -> None:
    with served_dashboard(tmp_path / "none.duckdb") as served, visiting(browser, served.address):
        assert served.stop() == 0
        # what the page says too, and nothing of the end
        assert served.log.read_text() == (
            f"There is no database. {tmp_path}/none.duckdb does not exist. Run `cockpit load`, or name another "
            "database with --project or --database. The dashboard follows without a restart.\n"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--destination", "postgres"), "The dashboard reads DuckDB files, and the destination is 'postgres'."),
        (("--token", "short"), "The token is shorter than 12 characters"),
        (("--host", "192.0.2.1"), "192.0.2.1 port 2718 cannot be used"),
        (("--database", "cockpit.duckdb"), "is named like its dataset"),
    ],
)
def test_what_does_not_work_is_one_message(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    done = run(*options, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_one_message(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = run("--port", str(taken.getsockname()[1]), folder=tmp_path)
    assert done.returncode == 2
    assert "Choose another with --host and --port" in done.stderr


def test_missing_extra_is_one_message(tmp_path: Path) -> None:
    """In a Python that cannot find marimo."""
    program = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'marimo' else find(name, *more)\n"
        "sys.argv = ['cockpit', 'dashboard']\n"
        "from cockpit_source.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'cockpit-source[dashboard]'" in done.stderr


def test_wheel_serves_the_dashboard(browser: Browser, tmp_path: Path) -> None:
    """Built from this tree and unpacked elsewhere: the app and its style are inside."""
    source = tmp_path / "source"
    subprocess.run(
        ["git", "-C", str(ROOT), "checkout-index", "--all", "--prefix", f"{source}/"], check=True, timeout=60
    )
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True, timeout=120
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    database = tmp_path / "none.duckdb"
    with served_dashboard(database, PYTHONPATH=str(installed)) as served, visiting(browser, served.address) as visit:
        _expect(visit, "There is no database", "cockpit load")
        style = "getComputedStyle(document.querySelector('.ck-notice')).borderRadius"
        assert visit.page.evaluate(style) == "10px"
        assert visit.page.evaluate("document.querySelector('marimo-filename').innerText").startswith(str(installed))
