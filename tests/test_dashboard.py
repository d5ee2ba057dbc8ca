"""The dashboard in a real browser: what it shows is what SQL says, and nothing leaves the machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import SCHEMES, SCREENSHOTS, WIDTHS, Served, Visit, running_browser, served_dashboard, visiting
from dashboard_world import build_inventory
from playwright.sync_api import Browser

from cockpit_source.dashboard import words
from cockpit_source.dashboard.pages import TABS
from cockpit_source.marts import seat_changes_sql
from cockpit_source.publish import read_copy_path
from cockpit_source.wording import plural

_SUMS = "sum(total_seats), sum(assigned_seats), sum(unassigned_seats), sum(suspended_seats)"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The read copy of a small inventory."""
    folder = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        build_inventory(folder / "inventory.duckdb")
        yield read_copy_path(folder / "inventory.duckdb")


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose sitecustomize notes each address that a process connects to or looks up."""
    folder = tmp_path_factory.mktemp("noted")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "def note(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        f"        with open({str(folder / 'noted.txt')!r}, 'a') as file:\n"
        "            print(event, arguments[-1] if event != 'socket.getaddrinfo' else arguments[0], file=file)\n"
        "sys.addaudithook(note)\n"
    )
    return folder


@pytest.fixture(scope="module")
def served(copy: Path, connections: Path) -> Iterator[Served]:
    """The dashboard of it."""
    root = Path(__file__).parent.parent
    database = copy.with_name("inventory.duckdb")
    with served_dashboard(database, PYTHONPATH=f"{connections}:{root}") as dashboard:
        yield dashboard


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    with visiting(browser, served.address) as page:
        yield page
        assert page.complaints == []
        assert page.foreign_requests == []


class Truth:
    """Answers of the marts themselves."""

    def __init__(self, copy: Path) -> None:
        self.connection = duckdb.connect(str(copy), read_only=True)
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("USE cockpit")

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, list(values)).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...]:
        (found,) = self.rows(sql, *values)
        return found

    def metric(self, name: str) -> Any:
        """The measure as the view `metrics` defines it."""
        (sql,) = self.row("SELECT sql FROM metrics WHERE metric = ?", name)
        found = self.rows(sql)
        return found[0][-1] if len(found) == 1 and len(found[0]) == 2 else {row[1]: row[2] for row in found}


@pytest.fixture
def truth(copy: Path) -> Iterator[Truth]:
    found = Truth(copy)
    yield found
    found.connection.close()


# ---- figures


def test_overview_shows_the_measures_as_they_are_defined(visit: Visit, truth: Truth) -> None:
    assert visit.figure("total_seats") == words.count(truth.metric("total_seats"))
    assert visit.figure("assignment_rate") == words.share(truth.metric("assignment_rate"))
    assert visit.figure("left_out_seats") == words.count(truth.metric("left_out_seats"))
    assert visit.figure("reclaimable_seats") == words.count(truth.metric("reclaimable_seats"))
    costs = truth.metric("reclaimable_cost")
    assert set(costs) == {"EUR", "USD"}
    for currency, cost in costs.items():
        assert visit.figure(f"reclaimable_cost_{currency}") == words.money(cost, currency)
    (priced,) = truth.row(
        "SELECT sum(reclaimable_seats) FILTER (currency = 'EUR') / sum(reclaimable_seats) FROM fct_reclaimable_seats"
    )
    assert f"{words.share(priced)} of the seats have such a price" in visit.text("reclaimable_cost_EUR")
    assert visit.figure("change_week") == words.change(truth.metric("seat_change_7_days"))
    assert visit.figure("change_month") == words.change(truth.metric("seat_change_30_days"))
    assert visit.figure("coverage") == words.share(truth.metric("coverage"))
    good, listed = truth.row("SELECT count(*) FILTER (state = 'good'), count(*) FROM scope_health WHERE is_listed")
    assert f"{good} of {listed} listed" in visit.text("coverage")
    assert good < listed
    assert words.age(truth.metric("oldest_read_hours")) in visit.text("age")
    assert "As last loaded" in visit.page.locator("header").first.inner_text()


@pytest.mark.parametrize(
    ("tab", "key", "condition"),
    [
        ("Customers", "customer_id", "GROUP BY tenant, customer_id"),
        ("SKUs", "sku_id", "GROUP BY tenant, sku_id"),
        ("Resellers", "reseller_id", "GROUP BY tenant, reseller_id"),
    ],
)
def test_download_holds_every_row_of_the_marts(
    visit: Visit, truth: Truth, tab: str, key: str, condition: str
) -> None:
    visit.open_tab(tab)
    rows = visit.download()
    wanted = truth.rows(
        f"SELECT coalesce({key}, ''), {_SUMS} FROM fct_current_inventory WHERE NOT is_free {condition}"
    )
    assert len(wanted) > 5
    assert sorted(
        (row[key], *(row[f"{name}_seats"] for name in ("total", "assigned", "unassigned", "suspended")))
        for row in rows
    ) == sorted(tuple(str(value) for value in row) for row in wanted)


def test_first_page_of_a_table_shows_its_first_rows(visit: Visit, truth: Truth) -> None:
    visit.open_tab("Customers")
    wanted = truth.rows(
        "SELECT customer_label, sum(reclaimable_seats), "
        "CASE count(DISTINCT currency) WHEN 1 THEN sum(reclaimable_cost) END, any_value(held.seats), "
        "any_value(held.assigned) FROM fct_reclaimable_seats JOIN dim_customers USING (tenant, customer_id) "
        "JOIN (SELECT tenant, customer_id, sum(total_seats) AS seats, sum(assigned_seats) AS assigned, "
        "sum(unassigned_seats) AS net "
        "FROM fct_current_inventory WHERE NOT is_free GROUP BY ALL) AS held USING (tenant, customer_id) "
        "GROUP BY customer_label ORDER BY 2 DESC, any_value(held.net) DESC, 1 LIMIT 20"
    )
    shown = visit.table()
    assert len(shown) == 20
    columns = ("customer", "reclaimable", "cost of reclaimable", "seats", "assigned")
    assert [tuple(row[name] for name in columns) for row in shown] == [
        (name, words.count(reclaimable), words.amount(cost), words.count(seats), words.count(assigned))
        for name, reclaimable, cost, seats, assigned in wanted
    ]
    # costs of several currencies are not added, and several customers of the sandbox have one name
    assert {cost is None for _, _, cost, *_ in wanted} == {True, False}
    assert sum(name.endswith(")") for name, *_ in wanted) > 2


# ---- filters


def test_filters_change_the_figures_as_conditions_of_sql_do(visit: Visit, truth: Truth) -> None:
    reseller, reseller_name = truth.row(
        "SELECT reseller_id, reseller_name FROM fct_current_inventory WHERE reseller_id IS NOT NULL "
        "GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1"
    )
    instance, instance_name = truth.row(
        "SELECT provider_instance_id, provider_instance_name FROM fct_current_inventory WHERE reseller_id = ? "
        "GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1",
        reseller,
    )
    total = "SELECT sum(total_seats) FROM fct_current_inventory WHERE "
    visit.choose("Reseller", reseller_name)
    visit.wait_for_figure(
        "total_seats", words.count(*truth.row(f"{total} NOT is_free AND reseller_id = ?", reseller))
    )
    visit.choose("Provider instance", instance_name)
    chosen = (reseller, instance)
    narrowed = f"{total} reseller_id = ? AND provider_instance_id = ?"
    visit.wait_for_figure("total_seats", words.count(*truth.row(f"{narrowed} AND NOT is_free", *chosen)))
    listed, good = truth.row(
        "SELECT count(*), count(*) FILTER (state = 'good') FROM scope_health "
        "WHERE is_listed AND reseller_id = ? AND provider_instance_id = ?",
        *chosen,
    )
    assert f"{good} of {listed} listed" in visit.text("coverage")
    visit.choose("Free or paid", "Both")
    visit.wait_for_figure("total_seats", words.count(*truth.row(narrowed, *chosen)))
    customer, name = truth.row(
        "SELECT customer_id, customer_name FROM fct_current_inventory WHERE reseller_id = ? AND "
        "provider_instance_id = ? ORDER BY customer_name LIMIT 1",
        *chosen,
    )
    visit.page.get_by_label("Customer", exact=True).fill(name.upper())
    seats = truth.row(f"{narrowed} AND customer_id = ?", *chosen, customer)
    visit.wait_for_figure("total_seats", words.count(*seats))
    visit.page.get_by_label("Customer", exact=True).fill("no such customer' OR 1=1 --")
    visit.wait_for_figure("total_seats", words.NOT_TOLD)


def test_direct_customers_and_one_sku_can_be_chosen(visit: Visit, truth: Truth) -> None:
    sku, name = truth.row(
        "SELECT sku_id, sku_name FROM fct_current_inventory WHERE reseller_id IS NULL AND NOT is_free "
        "GROUP BY ALL ORDER BY count(*) DESC, 1 LIMIT 1"
    )
    visit.choose("Reseller", "No reseller (direct)")
    visit.choose_searched("SKU", name)
    wanted = truth.row(
        "SELECT sum(total_seats) FROM fct_current_inventory WHERE reseller_id IS NULL AND NOT is_free AND sku_id = ?",
        sku,
    )
    visit.wait_for_figure("total_seats", words.count(*wanted))


def test_another_day_shows_the_inventory_of_that_day(visit: Visit, truth: Truth) -> None:
    (last,) = truth.row("SELECT max(compared_on) FROM int_days")
    day = last - timedelta(days=10)
    visit.choose_day("Day", day)
    sql = "SELECT sum(total_seats) FROM fct_daily_inventory WHERE snapshot_date = ? AND NOT is_free"
    wanted = truth.row(sql, day)
    assert wanted != truth.row(sql, last)
    visit.wait_for_figure("total_seats", words.count(*wanted))
    assert visit.figure("reclaimable_seats") == words.NOT_TOLD
    before = truth.row(sql, day - timedelta(days=7))
    assert visit.figure("change_week") == words.change(wanted[0] - before[0])
    # the history does not go back that far
    assert visit.figure("change_month") == words.NOT_TOLD
    visit.page.locator(".mo-label").filter(has_text="Day").get_by_role("spinbutton").last.click()
    visit.page.keyboard.type("2020")
    visit.page.get_by_text(f"The history goes from {last - timedelta(days=35)} to {last}.").wait_for()


# ---- changes, attention, scope health, deletions


@pytest.mark.parametrize("days", [7, 30, 12])
def test_changes_between_two_days_sum_up_to_the_difference(visit: Visit, truth: Truth, days: int) -> None:
    visit.open_tab("Changes")
    (last,) = truth.row("SELECT max(compared_on) FROM int_days")
    first = last - timedelta(days=days)
    if days != 7:
        visit.choose_day("From the end of", first)
        visit.page.get_by_role("heading", name=f"Seats from {first} to {last}").wait_for()
    rows = visit.download()
    wanted = truth.rows(
        f"SELECT kind, customer_id, provider_instance_id, sku_id, seats_before, seats_after, seat_change "
        f"FROM ({seat_changes_sql(first, last)}) WHERE NOT is_free"
    )
    assert wanted
    names = ("kind", "customer_id", "provider_instance_id", "sku_id", "seats_before", "seats_after", "seat_change")
    assert sorted(tuple(row[name] for name in names) for row in rows) == sorted(
        tuple(str(value) for value in row) for row in wanted
    )
    assert visit.figure("change_total") == words.change(_seats(truth, last) - _seats(truth, first))
    for kind in {row[0] for row in wanted}:
        assert visit.figure(f"change_{kind}") == words.change(sum(row[-1] for row in wanted if row[0] == kind))


def _seats(truth: Truth, day: date) -> int:
    return int(
        truth.row("SELECT sum(total_seats) FROM fct_daily_totals WHERE NOT is_free AND snapshot_date = ?", day)[0]
    )


def test_attention_list_is_the_mart(visit: Visit, truth: Truth) -> None:
    visit.open_tab("Attention")
    kinds = truth.rows("SELECT kind, count(*) FROM attention GROUP BY kind ORDER BY kind")
    assert len(kinds) >= 4
    for kind, number in kinds:
        assert visit.figure(f"attention_{kind}") == words.count(number)
    assert len(visit.download()) == sum(number for _, number in kinds)
    kind, number = kinds[-1]
    visit.choose("Kind", words.kind(kind))
    visit.page.get_by_text(f"({plural(number, 'row')})").wait_for()
    assert {row["kind"] for row in visit.download()} == {kind}


def test_scope_health_names_what_was_not_read(visit: Visit, truth: Truth) -> None:
    visit.open_tab("Scope health")
    for state, number in truth.rows("SELECT state, count(*) FROM scope_health GROUP BY state"):
        assert visit.figure(f"scopes_{state.replace(' ', '_')}") == words.count(number)
    columns = ("scope_key", "state", "last_outcome", "reason")
    wanted = truth.rows(f"SELECT {', '.join(columns)} FROM scope_health WHERE state <> 'good'")
    assert {row[1] for row in wanted} >= {"stale", "never read"}
    assert sorted(tuple(row[name] for name in columns) for row in visit.download()) == sorted(
        tuple(value or "" for value in row) for row in wanted
    )
    visit.page.get_by_label("Only scopes that were not read well").uncheck()
    (everything,) = truth.row("SELECT count(*) FROM scope_health")
    visit.page.get_by_text(f"({plural(everything, 'row')})").wait_for()


def test_without_a_ledger_the_page_says_so(visit: Visit) -> None:
    visit.open_tab("Deletions")
    assert "There is no ledger of deletions" in visit.page.locator(".ck-notice").inner_text()


# ---- every tab, width and theme


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_is_readable_and_stays_on_the_machine(
    browser: Browser, served: Served, width: int, scheme: Any
) -> None:
    """Screenshots too, in tests/screenshots; axe looks at each page, and nothing serious or critical may be left."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with visiting(browser, served.address, width=width, scheme=scheme) as visit:
        for tab in TABS:
            visit.open_tab(tab)
            visit.settle()
            name = f"{tab.lower().replace(' ', '_')}_{width}_{scheme}.png"
            visit.page.screenshot(path=SCREENSHOTS / name, full_page=True)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, tab
            found = Axe().run(visit.page).response["violations"]
            assert [(tab, one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in _GRAVE] == []
        assert scheme in visit.page.evaluate("document.body.className").split()
        assert visit.complaints == []
        assert len(visit.requests) > 100
        assert visit.foreign_requests == []


_GRAVE = ("serious", "critical")


def test_server_asks_nobody(visit: Visit, connections: Path) -> None:
    """By the audit events of Python, from its start to after pages were looked at: no update check, no telemetry."""
    noted = connections / "noted.txt"
    lines = noted.read_text().splitlines() if noted.exists() else []
    assert [line for line in lines if "127.0.0.1" not in line and "localhost" not in line] == []


# ---- keyboard


def test_everything_can_be_reached_with_the_keyboard(visit: Visit, truth: Truth) -> None:
    page = visit.page
    page.get_by_role("button", name="Resellers", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator('main[aria-label="Resellers"]').wait_for()
    page.evaluate("document.activeElement.blur()")
    reached = {}
    for _ in range(160):
        page.keyboard.press("Tab")
        reached[page.evaluate(_FOCUSED)] = page.evaluate(_FOCUS_IS_VISIBLE)
    wanted = {"Reseller", "Provider instance", "Customer", "SKU", "Free or paid", "Calendar", *TABS, "Download"}
    assert reached.keys() >= wanted
    # the field for searching is marked by what is around it
    assert {name for name, is_visible in reached.items() if not is_visible} <= {"INPUT", "BODY"}
    page.get_by_label("Free or paid").focus()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    wanted = truth.row("SELECT count(DISTINCT coalesce(reseller_id, '')) FROM fct_current_inventory")
    page.get_by_text(f"({plural(wanted[0], 'row')})").wait_for()
    page.get_by_role("button", name="Customers", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator('main[aria-label="Customers"]').wait_for()
    page.get_by_role("button", name="Next page").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Choose page, current page 2 of 3").wait_for()


_FOCUSED = """() => {
  let one = document.activeElement;
  while (one && one.shadowRoot && one.shadowRoot.activeElement) one = one.shadowRoot.activeElement;
  if (!one) return '';
  if (one.dataset.testid === 'marimo-plugin-button') return one.innerText.trim();
  if (one.innerText && one.innerText.includes('Download CSV')) return 'Download';
  const label = one.id && one.getRootNode().querySelector(`label[for="${one.id}"]`);
  return one.getAttribute('aria-label') || (label ? label.innerText.trim() : one.tagName);
}"""
_FOCUS_IS_VISIBLE = """() => {
  let one = document.activeElement;
  while (one && one.shadowRoot && one.shadowRoot.activeElement) one = one.shadowRoot.activeElement;
  const style = getComputedStyle(one);
  return style.outlineStyle !== 'none' || style.boxShadow !== 'none';
}"""
