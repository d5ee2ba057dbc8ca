# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The app that `cockpit dashboard` serves: what can be chosen, and the tab that is open. Pages and SQL lie beside."""

import marimo

app = marimo.App(width="full", app_title="Licence inventory", css_file="dashboard.css")


@app.cell
def _():
    import marimo as mo

    from cockpit_source.dashboard import choices, states
    from cockpit_source.dashboard.database import shown_database
    from cockpit_source.dashboard.pages import TABS, Pages

    database = shown_database()
    get_version, set_version = mo.state(database.version)
    return TABS, Pages, choices, database, get_version, mo, set_version, states


@app.cell
def _(mo):
    ticker = mo.ui.refresh(options=["10s"], default_interval="10s")
    mo.Html(f'<div class="ck-hidden">{ticker}</div>')
    return (ticker,)


@app.cell
def _(database, get_version, set_version, ticker):
    ticker  # looks every so often whether a load has published a newer copy
    if database.version != get_version():
        set_version(database.version)
    return


@app.cell
def _(database, get_version, mo, states):
    get_version()
    problem = states.describe(database)
    mo.stop(problem is not None, problem)
    ready = True
    return (ready,)


@app.cell
def _(choices, database, get_version, mo, ready):
    get_version()
    mo.stop(not ready)
    widgets = choices.make_widgets(database)
    choices.header(database)
    return (widgets,)


@app.cell
def _(choices, widgets):
    choices.layout(widgets, "Filters")
    return


@app.cell
def _(TABS, mo, ready):
    mo.stop(not ready)
    tabs = mo.ui.tabs(dict.fromkeys(TABS, ""))
    mo.Html(f'<nav aria-label="Pages">{tabs}</nav>')
    return (tabs,)


@app.cell
def _(choices, database, get_version, tabs):
    get_version()
    # what belongs to one tab only
    period = choices.make_period(database) if tabs.value == "Changes" else None
    kind = choices.make_attention_kind(database) if tabs.value == "Attention" else None
    bad_only = choices.make_bad_only() if tabs.value == "Scope health" else None
    chosen = next((part for part in (period, kind, bad_only) if part is not None), None)
    None if chosen is None else choices.layout(chosen, "Choices of this tab")
    return bad_only, kind, period


@app.cell
def _(Pages, bad_only, choices, database, get_version, kind, period, tabs, widgets):
    get_version()
    page = Pages(database, choices.read_filters(database, widgets))
    choices.render(page, tabs.value, period=period, kind=kind, bad_only=bad_only)
    return (page,)


@app.cell
def _(choices, page, tabs):
    choices.render_charts(page, tabs.value)
    return


if __name__ == "__main__":
    app.run()
