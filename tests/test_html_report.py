"""`cockpit report`: its figures are what SQL on the marts says, and the file needs nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import SCHEMES, SCREENSHOTS, WIDTHS, running_browser
from playwright.sync_api import Browser
from report_page import ReportPage, read_report
from report_world import HOSTILE, build_priced

from cockpit_source.dashboard import words
from cockpit_source.html_report.scales import nice_ticks, place_bars, place_trend
from cockpit_source.publish import publish_read_copy, read_copy_path

_GRAVE = ("serious", "critical")


def run(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cockpit_source.cli", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "DLT_DATA_DIR": str(folder / "dlt")} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@dataclass(frozen=True)
class World:
    """An inventory and the report of it."""

    database: Path
    report: Path
    now: datetime

    @cached_property
    def page(self) -> ReportPage:
        return read_report(self.report)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(read_copy_path(self.database)), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("USE cockpit")
            return connection.execute(sql).fetchall()

    def row(self, sql: str) -> tuple[Any, ...]:
        (found,) = self.rows(sql)
        return found

    def metric(self, name: str) -> Any:
        """The value of a measure, by the SQL of its definition."""
        (sql,) = self.row(f"SELECT sql FROM metrics WHERE metric = '{name}'")
        return self.row(sql)[-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        now = build_priced(folder / "inventory.duckdb")
        written = run(folder, "report", "--database", "inventory.duckdb", "--out", "report.html")
        assert written.returncode == 0, written.stderr
        assert str(folder / "report.html") in written.stdout
        yield World(folder / "inventory.duckdb", folder / "report.html", now)


def test_headline_figures_are_the_measures(world: World) -> None:
    figures = world.page.figures
    for name in ("total_seats", "assigned_seats", "reclaimable_seats"):
        assert figures[name].startswith(words.count(world.metric(name))), name
    assert figures["assignment_rate"].startswith(words.share(world.metric("assignment_rate")))
    assert figures["left_out_seats"] == words.count(world.metric("left_out_seats"))
    assert figures["coverage"].startswith(words.share(world.metric("coverage")))
    costs = world.rows(
        "SELECT currency, sum(reclaimable_cost)::DOUBLE, "
        "sum(reclaimable_seats) / (SELECT sum(reclaimable_seats) FROM fct_reclaimable_seats) "
        "FROM fct_reclaimable_seats "
        "WHERE currency IS NOT NULL GROUP BY 1"
    )
    assert len(costs) == 2
    for currency, cost, priced in costs:
        assert figures[f"reclaimable_cost_{currency}"] == (
            f"{cost:,.2f}a billing period; {words.share(priced)} of the seats have such a price"
        )


def test_changes_are_those_of_the_days(world: World) -> None:
    (last,) = world.row("SELECT max((started_at AT TIME ZONE 'UTC')::DATE) FROM runs")
    totals = dict(world.rows("SELECT snapshot_date, total_seats FROM fct_daily_totals WHERE NOT is_free"))
    for name, span in (("day", 1), ("week", 7), ("month", 30)):
        change = totals[last] - totals[last - timedelta(days=span)]
        assert world.page.figures[f"change_{name}"].startswith(words.change(change) + "seats, since the end of")
    heading, *kinds, whole = world.page.tables["changes"]
    assert len(heading) == 4
    assert [row[0] for row in kinds] == list(map(words.kind, _kinds()))
    for place, span in enumerate((1, 7, 30), 1):
        found = dict(
            world.rows(
                "SELECT kind, sum(seat_change)::BIGINT FROM fct_seat_changes "
                f"WHERE to_date = DATE '{last}' AND span_days = {span} AND NOT is_free GROUP BY 1"
            )
        )
        assert [row[place] for row in kinds] == [words.change(found.get(kind, 0)) for kind in _kinds()]
        assert whole[place] == words.change(sum(found.values()))
        assert sum(found.values()) == totals[last] - totals[last - timedelta(days=span)]


def test_trend_shows_the_last_fourteen_days(world: World) -> None:
    found = world.rows(
        "SELECT snapshot_date, total_seats, assigned_seats, unassigned_seats FROM fct_daily_totals "
        "WHERE NOT is_free ORDER BY 1 DESC LIMIT 15"
    )
    (last,) = world.row("SELECT max((started_at AT TIME ZONE 'UTC')::DATE) FROM runs")
    expected = [[str(day), *map(words.count, seats)] for day, *seats in reversed(found) if day <= last][-14:]
    assert world.page.tables["trend"][1:] == expected
    assert len(expected) == 14


def test_tables_hold_the_first_rows_and_say_how_many_are_left_out(world: World) -> None:
    found = world.rows(
        "SELECT customer_label, (sum(unassigned_seats) FILTER (unassigned_seats > 0))::BIGINT AS open_seats, "
        "count(DISTINCT currency) FILTER (unassigned_seats > 0), "
        "sum(unassigned_seats * unit_price) FILTER (unassigned_seats > 0)::DOUBLE, "
        "min(currency) FILTER (unassigned_seats > 0), sum(total_seats)::BIGINT, "
        "sum(assigned_seats)::BIGINT FROM fct_current_inventory "
        "LEFT JOIN (SELECT tenant, sku_id, unit_price, currency FROM dim_skus) USING (tenant, sku_id) "
        "JOIN (SELECT tenant, customer_id, customer_label FROM dim_customers) USING (tenant, customer_id) "
        "WHERE NOT is_free GROUP BY tenant, customer_id, customer_label "
        "ORDER BY open_seats DESC NULLS LAST, sum(unassigned_seats) DESC NULLS LAST, customer_label, customer_id"
    )
    shown = [row[:5] for row in world.page.tables["customers"][1:]]
    # costs of several currencies are not added
    assert shown == [
        [
            *(name, words.count(open_seats), words.money(cost if currencies == 1 else None, currency)),
            *map(words.count, (seats, assigned)),
        ]
        for name, open_seats, currencies, cost, currency, seats, assigned in found[:25]
    ]
    assert len({currencies for _, _, currencies, *_ in found[:25]}) > 1
    assert f"The 25 first of {len(found)} rows" in world.page.text
    assert f"{len(found) - 25} rows left out here" in world.page.text
    skus = world.rows("SELECT DISTINCT sku_id FROM fct_current_inventory WHERE NOT is_free")
    assert len(world.page.tables["skus"]) - 1 == min(25, len(skus))
    resellers = world.row(
        "SELECT count(DISTINCT coalesce(reseller_id, '')) FROM fct_current_inventory WHERE NOT is_free"
    )
    assert len(world.page.tables["resellers"]) - 1 == min(25, resellers[0])
    free = world.row("SELECT count(DISTINCT sku_id) FROM fct_current_inventory WHERE is_free")
    assert len(world.page.tables["left_out"]) - 1 == free[0]
    metrics = world.rows("SELECT metric, unit, definition FROM metrics")
    assert world.page.tables["definitions"][1:] == [list(row) for row in metrics]


def test_attention_and_unread_scopes_are_those_of_the_marts(world: World) -> None:
    shown = dict(re.findall(r'data-attention="(\w+)">([\d,]+)<', world.report.read_text(encoding="utf-8")))
    counted = world.rows("SELECT kind, count(*) FROM attention GROUP BY 1")
    assert shown == {kind: words.count(number) for kind, number in counted}
    unread = world.rows("SELECT reason FROM scope_health WHERE is_listed AND state <> 'good'")
    assert unread
    assert sorted(row[4] for row in world.page.tables["unread"][1:]) == sorted(reason for (reason,) in unread)


def test_says_what_it_is_of(world: World) -> None:
    run_id, tenant = world.row("SELECT run_id, tenant FROM runs ORDER BY started_at DESC LIMIT 1")
    for piece in (run_id, tenant, "A simulated tenant.", "UTC by cockpit"):
        assert piece in world.page.text, piece


def test_names_are_escaped_and_nothing_is_fetched(world: World) -> None:
    text = world.report.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(" in text
    assert HOSTILE in [row[0] for row in world.page.tables["customers"]]
    assert {address for address in world.page.addresses if not address.startswith("#")} == {"data:,"}
    assert not world.page.tags & {"img", "iframe", "object", "embed", "form", "base"}
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    scripts = "".join(re.findall(r"<script>(.*?)</script>", text, re.DOTALL))
    assert not re.findall(r"fetch|XMLHttpRequest|import|WebSocket|sendBeacon", scripts)
    assert len(text.encode()) < 5 << 20


def test_real_tenant_is_not_called_simulated(world: World, tmp_path: Path) -> None:
    database = tmp_path / "real.duckdb"
    database.write_bytes(world.database.read_bytes())
    with duckdb.connect(str(database)) as connection:
        connection.execute("UPDATE cockpit.runs SET base_url = 'https://api.example.com'")
    assert publish_read_copy(database, "test", wait_seconds=5, note=print)
    written = run(tmp_path, "report", "--database", database)
    assert written.returncode == 0, written.stderr
    assert "simulated" not in read_report(tmp_path / "report.html").text.lower()


def test_rows_of_several_tenants_name_theirs(world: World, tmp_path: Path) -> None:
    """The same customers once more, as those of another tenant."""
    (tenant,) = world.row("SELECT DISTINCT tenant FROM runs")
    database = tmp_path / "two.duckdb"
    database.write_bytes(world.database.read_bytes())
    with duckdb.connect(str(database)) as connection:
        for table in ("runs", "customers", "resellers", "scopes", "scope_runs", "licenses", "license_history"):
            columns = connection.execute(f"SELECT * FROM cockpit.{table} LIMIT 0").to_arrow_table().column_names
            keyed = "".join(
                f", replace({name}, '{tenant}', 'second.example') AS {name}" for name in {"scope_key"} & set(columns)
            )
            select = f"SELECT * REPLACE ('second.example' AS tenant{keyed}) FROM cockpit.{table}"
            connection.execute(f"INSERT INTO cockpit.{table} {select}")
    assert publish_read_copy(database, "test", wait_seconds=5, note=print)
    written = run(tmp_path, "report", "--database", database)
    assert written.returncode == 0, written.stderr
    two = read_report(tmp_path / "report.html").tables
    for name in ("customers", "resellers", "unread", "attention_stale", "attention_full"):
        head, *rows = two[name]
        assert head[-1] == "Tenant"
        assert {row[-1] for row in rows} <= {tenant, "second.example"}
        assert "Tenant" not in world.page.tables[name][0]
    assert {row[-1] for row in two["resellers"][1:]} == {tenant, "second.example"}
    assert [row[:-1] for row in two["resellers"][1::2]] == world.page.tables["resellers"][1:][
        : len(two["resellers"]) // 2
    ]


def test_runs_that_read_nothing_make_a_report_too(world: World, tmp_path: Path) -> None:
    database = tmp_path / "nothing.duckdb"
    database.write_bytes(world.database.read_bytes())
    with duckdb.connect(str(database)) as connection:
        for table in ("licenses", "license_history", "scopes", "scope_runs", "customers", "resellers"):
            connection.execute(f"DELETE FROM cockpit.{table}")
    assert publish_read_copy(database, "test", wait_seconds=5, note=print)
    written = run(tmp_path, "report", "--database", database)
    assert written.returncode == 0, written.stderr
    page = read_report(tmp_path / "report.html")
    assert page.figures["total_seats"] == words.NOT_TOLD + "0 customers, 0 SKUs"
    assert page.figures["coverage"].startswith(words.NOT_TOLD)
    assert "There are none." in page.text


def test_needs_no_extra(world: World, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('marimo', 'altair', 'pandas', 'starlette', 'uvicorn'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    path = f"{tmp_path}:{Path(__file__).parent.parent}"
    written = run(tmp_path, "report", "--database", world.database, PYTHONPATH=path)
    assert written.returncode == 0, written.stderr
    assert read_report(tmp_path / "report.html").tables["customers"] == world.page.tables["customers"]


def test_says_what_is_missing(world: World, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        ran = run(tmp_path, *arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "Traceback" not in ran.stderr
        assert not (tmp_path / "report.html").exists()
        return ran.stderr

    for command in (("report",), ("export", "--out", "parquet")):
        assert "There is no database" in refused(*command, "--database", "none.duckdb")
        database = tmp_path / f"{command[0]}.duckdb"
        duckdb.connect(str(database)).close()
        assert f"not its copy {command[0]}.read.duckdb" in refused(*command, "--database", database)
        assert publish_read_copy(database, "test", wait_seconds=5, note=print)
        assert "holds no run of a load" in refused(*command, "--database", database)
        database.write_bytes(world.database.read_bytes())
        with duckdb.connect(str(database)) as connection:
            connection.execute("DROP VIEW cockpit.attention")
        assert publish_read_copy(database, "test", wait_seconds=5, note=print)
        message = refused(*command, "--database", database)
        assert message.startswith("Error: The marts are not built. ")
        # the way out comes before what is only for looking things up
        assert message.endswith("Run `cockpit marts`, with the same --project and --database. Missing: attention.\n")
        read_copy_path(database).write_bytes(b"no database")
        assert "cannot be read" in refused(*command, "--database", database)
        read_copy_path(database).unlink()
        assert "docs/bi.md" in refused(*command, "--destination", "postgres")


def test_without_out_it_lies_in_the_current_folder(world: World, tmp_path: Path) -> None:
    (tmp_path / "project" / ".dlt").mkdir(parents=True)
    ran = run(tmp_path, "report", "--project", "project", "--database", world.database)
    assert (ran.returncode, sorted(path.name for path in tmp_path.rglob("*.html"))) == (0, ["report.html"])
    assert f"Report written to {tmp_path / 'report.html'} (" in ran.stdout
    told = " ".join(run(tmp_path, "report", "--help").stdout.split())
    assert "Without --out it is report.html in the current folder" in told


def test_a_report_that_cannot_be_written_leaves_the_one_before(world: World, tmp_path: Path) -> None:
    ran = run(tmp_path, "report", "--database", world.database, "--out", "none/report.html")
    assert ran.returncode == 2
    assert "cannot be written" in ran.stderr
    (tmp_path / "folder").mkdir()
    ran = run(tmp_path, "report", "--database", world.database, "--out", "folder")
    assert ran.returncode == 2
    assert "cannot be written" in ran.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_opens_in_a_browser_without_a_request_or_complaint(
    browser: Browser, world: World, width: int, scheme: Any
) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, locale="en-GB")
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        page.goto(world.report.as_uri())
        page.screenshot(path=SCREENSHOTS / f"report_{width}_{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        _sort(page)
        # axe is injected by the debugger, which the page's own policy does not bind
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in _GRAVE] == []
        assert complaints == []
        assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
        assert requests.count(world.report.as_uri()) == len([one for one in requests if one.startswith("file:")])
    finally:
        context.close()


def _sort(page: Any) -> None:
    """By keyboard: once for the largest first, again for the smallest."""
    table = page.locator('table[data-table="customers"]')
    button = table.get_by_role("button", name="Seats", exact=True)
    for direction, reverse in (("descending", True), ("ascending", False)):
        button.focus()
        page.keyboard.press("Enter")
        assert table.locator(f'th[aria-sort="{direction}"]').inner_text() == "Seats"
        shown = [_number(text) for text in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]
        assert shown == sorted(shown, reverse=reverse)


def test_scales() -> None:
    assert nice_ticks(0) == [0, 1]
    assert nice_ticks(3) == [0, 1, 2, 3]
    assert nice_ticks(211_186) == [0, 50_000, 100_000, 150_000, 200_000, 250_000]
    assert place_bars([4, -2, 0]) == [100, 50, 0]
    assert place_bars([0]) == [0]
    one = [{"snapshot_date": datetime.now(UTC).date(), "total_seats": 50, "assigned_seats": None}]
    (point,) = place_trend(one)["points"]
    assert (point["x"], point["total_y"], point["assigned_y"], point["is_labelled"]) == (50, 0, 100, True)


def _kinds() -> tuple[str, ...]:
    return ("new_customer", "new_sku", "expansion", "contraction", "lost_sku", "lost_customer")


def _number(text: str) -> int:
    return int(text.replace("\N{MINUS SIGN}", "-").replace("±", "").replace(",", ""))
