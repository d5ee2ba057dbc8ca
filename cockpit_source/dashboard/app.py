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
    get_tab, set_tab = mo.state(TABS[0])
    return Pages, choices, database, get_tab, get_version, mo, set_tab, set_version, states


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
def _(choices, mo, ready, set_tab):
    mo.stop(not ready)
    tabs = choices.make_tabs(set_tab)
    choices.layout_tabs(tabs)
    return (tabs,)


@app.cell
def _(choices, get_tab):
    # the buttons stay as they are, so that the one that was pressed keeps the focus
    tab = get_tab()
    choices.mark_tab(tab)
    return (tab,)


@app.cell
def _(choices, database, get_version, mo, ready, tab):
    mo.stop(not ready)
    get_version()
    # what belongs to one tab only
    period = choices.make_period(database) if tab == "Changes" else None
    kind = choices.make_attention_kind(database) if tab == "Attention" else None
    bad_only = choices.make_bad_only() if tab == "Scope health" else None
    chosen = next((part for part in (period, kind, bad_only) if part is not None), None)
    None if chosen is None else choices.layout(chosen, "Choices of this tab")
    return bad_only, kind, period


@app.cell
def _(Pages, bad_only, choices, database, get_version, kind, period, tab, widgets):
    get_version()
    page = Pages(database, choices.read_filters(database, widgets))
    choices.render(page, tab, period=period, kind=kind, bad_only=bad_only)
    return (page,)


@app.cell
def _(choices, page, tab):
    choices.render_charts(page, tab)
    return


if __name__ == "__main__":
    app.run()
