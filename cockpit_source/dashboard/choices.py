"""What the reader can choose: filters, days, and what belongs to one tab only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import marimo as mo

from cockpit_source.dashboard import queries, words
from cockpit_source.dashboard.database import ShownDatabase
from cockpit_source.dashboard.filters import DIRECT, Filters
from cockpit_source.dashboard.pages import TABS, Pages
from cockpit_source.settings import is_loopback

_ALL = "All"
_KINDS = {"Paid": "paid", "Free": "free", "Both": "all"}


def header(database: ShownDatabase) -> mo.Html:
    """The title, and what the figures rest on."""
    run = database.query(queries.last_run().sql).to_pylist()[0]
    simulated = "<p>A simulated tenant: no figure here is of a real customer.</p>"
    return mo.Html(
        '<header class="ck-header"><h1>Licence inventory</h1>'
        f"<p>As last loaded: run of {words.text(words.moment_and_age(run['started_at']))}, "
        f'<span class="ck-status">{words.text(run["status"])}</span>. Times are UTC.</p>'
        f"{simulated if is_loopback(run['base_url']) else ''}</header>"
    )


def make_widgets(database: ShownDatabase) -> Any:
    """The filters that all tabs share."""
    options = {name: _options(database, query) for name, query in queries.choices().items()}
    days = database.query(queries.days().sql).to_pylist()[0]
    reseller = {_ALL: None, "No reseller (direct)": DIRECT} | options["reseller"]
    widgets: dict[str, Any] = {
        "reseller": _dropdown(reseller, "Reseller"),
        "instance": _dropdown({_ALL: None} | options["instance"], "Provider instance"),
        "customer": mo.ui.text(label="Customer", placeholder="name or id", debounce=400, full_width=True),
        "sku": _dropdown({_ALL: None} | options["sku"], "SKU"),
        "kind": mo.ui.dropdown(_KINDS, value="Paid", label="Free or paid", full_width=True),
        "day": mo.ui.date(
            start=days["first_day"], stop=days["last_day"], value=days["last_day"], label="Day", full_width=True
        ),
    }
    if len(options["tenant"]) > 1:
        widgets = {"tenant": _dropdown({_ALL: None} | options["tenant"], "Tenant")} | widgets
    return mo.ui.dictionary(widgets)


def layout(widgets: Any, name: str) -> mo.Html:
    """Choices beside each other, as many as fit; `name` is what a screen reader calls them."""
    elements = list(widgets.elements.values()) if hasattr(widgets, "elements") else [widgets]
    fields = "".join(f"<div>{mo.as_html(element).text}</div>" for element in elements)
    return mo.Html(f'<section class="ck-choices" aria-label="{name}">{fields}</section>')


def make_tabs(open_tab: Callable[[str], None]) -> Any:
    """A button for each page. marimo's own tabs cannot be walked with the arrow keys."""
    return mo.ui.array([_make_tab(name, open_tab) for name in TABS])


def _make_tab(name: str, open_tab: Callable[[str], None]) -> Any:
    return mo.ui.button(label=name, on_change=lambda _: open_tab(name))


def layout_tabs(tabs: Any) -> mo.Html:
    """The buttons beside each other."""
    pairs = zip(TABS, tabs.elements, strict=True)
    buttons = "".join(f'<div class="ck-tab" data-tab="{name}">{button.text}</div>' for name, button in pairs)
    return mo.Html(f'<nav class="ck-tabs" aria-label="Pages">{buttons}</nav>')


def mark_tab(tab: str) -> mo.Html:
    """Lets the button of the open page stand out."""
    colours = "--ck-tab: var(--ck-open); --ck-tab-text: var(--ck-text); --ck-tab-line: var(--ck-accent);"
    return mo.Html(f'<div class="ck-hidden"><style>.ck-tab[data-tab="{tab}"] {{ {colours} }}</style></div>')


def read_filters(database: ShownDatabase, widgets: Any) -> Filters:
    """What was chosen."""
    chosen = widgets.value
    last_day = database.query(queries.days().sql).to_pylist()[0]["last_day"]
    day = chosen["day"]
    return Filters(
        tenant=chosen.get("tenant"),
        reseller=chosen["reseller"],
        instance=chosen["instance"],
        customer=chosen["customer"] or "",
        sku=chosen["sku"],
        kind=chosen["kind"] or "paid",
        day=None if day == last_day else day,
    )


def make_period(database: ShownDatabase) -> Any:
    """Two days for the tab of changes: by default the last week."""
    days = database.query(queries.days().sql).to_pylist()[0]
    first, last = days["first_day"], days["last_day"]
    return mo.ui.dictionary(
        {
            "from": mo.ui.date(
                start=first, stop=last, value=max(first, last - timedelta(days=7)), label="From the end of"
            ),
            "to": mo.ui.date(start=first, stop=last, value=last, label="To the end of"),
        }
    )


def make_attention_kind(database: ShownDatabase) -> Any:
    """One kind of the attention list, or all."""
    found = database.query("SELECT DISTINCT kind FROM attention ORDER BY kind").to_pylist()
    return mo.ui.dropdown(
        {_ALL: None} | {words.kind(row["kind"]): row["kind"] for row in found}, value=_ALL, label="Kind"
    )


def make_bad_only() -> Any:
    """Whether scopes that were read well are left out."""
    return mo.ui.checkbox(value=True, label="Only scopes that were not read well")


def render(page: Pages, tab: str, *, period: Any, kind: Any, bad_only: Any) -> mo.Html:
    """The open tab."""
    return mo.Html(
        f'<main aria-label="{tab}">{_page(page, tab, period=period, kind=kind, bad_only=bad_only).text}</main>'
    )


def render_charts(page: Pages, tab: str) -> mo.Html | None:
    """What of the open tab comes after its figures, since it takes longer."""
    if tab != "Overview" or page.outside(page.day):
        return None
    return mo.Html(f'<section aria-label="Charts and definitions">{page.overview_charts().text}</section>')


def _page(page: Pages, tab: str, *, period: Any, kind: Any, bad_only: Any) -> mo.Html:
    if tab == "Attention":
        return page.attention(kind.value)
    if tab == "Scope health":
        return page.scope_health(only_bad=bool(bad_only.value))
    if tab == "Deletions":
        return page.deletions()
    if tab == "Changes":
        days = period.value["from"], period.value["to"]
        return page.outside(*days) or page.changes(*days)
    pages = {"Customers": page.customers, "SKUs": page.skus, "Resellers": page.resellers}
    return page.outside(page.day) or pages.get(tab, page.overview)()


def _dropdown(options: dict[str, Any], label: str) -> Any:
    return mo.ui.dropdown(options, value=_ALL, label=label, searchable=len(options) > 12, full_width=True)


def _options(database: ShownDatabase, query: queries.Query) -> dict[str, str]:
    """Names to ids; a name that several have gets its id beside."""
    rows = database.query(query.sql, query.values).to_pylist()
    names = [row["name"] or row["id"] for row in rows]
    return {
        f"{name} ({row['id']})" if names.count(name) > 1 else name: row["id"]
        for name, row in zip(names, rows, strict=True)
    }
