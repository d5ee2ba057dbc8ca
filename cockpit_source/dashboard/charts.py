"""Charts. Their data are small and already added up; colours work on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa

from cockpit_source.dashboard import words

ASSIGNED = "#2f7ed8"
UNASSIGNED = "#e0912f"
GAIN = "#2a9d6a"
LOSS = "#d1495b"
_GREY = "#7f8896"

_HEIGHT = 260
_SHORT = "format(datum.value, '~s')"


def trend(rows: pa.Table) -> Any:
    """Seats and assigned seats at the end of some days."""
    days = [
        {
            "day": row["snapshot_date"].isoformat(),
            "date": f"{row['snapshot_date']:%d %b %Y}",
            "what": what,
            "seats": row[column],
        }
        for row in rows.to_pylist()
        for what, column in (("Seats", "total_seats"), ("Assigned", "assigned_seats"))
    ]
    chart = (
        alt.Chart(pa.Table.from_pylist(days), description="Seats and assigned seats at the end of some days")
        .mark_line(point=True, strokeWidth=2.5)
        .encode(
            x=alt.X("day:T", title=None, scale=alt.Scale(type="utc"), axis=_days_axis(rows)),
            y=alt.Y("seats:Q", title=None, scale=alt.Scale(zero=True), axis=alt.Axis(labelExpr=_SHORT, tickCount=5)),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(domain=["Seats", "Assigned"], range=[UNASSIGNED, ASSIGNED]),
                legend=alt.Legend(orient="top"),
            ),
            tooltip=[
                alt.Tooltip("date:N", title="Day"),
                alt.Tooltip("what:N", title="What"),
                alt.Tooltip("seats:Q", title="Seats", format=","),
            ],
        )
    )
    return _finish(chart, _HEIGHT)


def _days_axis(rows: pa.Table) -> alt.Axis:
    """Labels at some of the days themselves, since a short span would repeat its dates."""
    days = [row["snapshot_date"] for row in rows.to_pylist()]
    shown = days[:: -max(1, -(-len(days) // 6))]
    ticks = [alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True) for day in shown]
    return alt.Axis(format="%d %b", labelOverlap=True, grid=False, values=ticks)


def unassigned_by_sku(rows: pa.Table) -> Any:
    """The SKUs with most unassigned seats, as bars."""
    values = [{"product": row["sku_name"], "seats": row["unassigned_seats"]} for row in rows.to_pylist()]
    chart = (
        alt.Chart(pa.Table.from_pylist(values), description="The ten SKUs with most unassigned seats")
        .mark_bar(color=UNASSIGNED, cornerRadiusEnd=3)
        .encode(
            x=alt.X("seats:Q", title=None, axis=alt.Axis(labelExpr=_SHORT, tickCount=4)),
            y=alt.Y("product:N", title=None, sort=None, axis=alt.Axis(labelLimit=180, ticks=False, domain=False)),
            tooltip=[
                alt.Tooltip("product:N", title="Product"),
                alt.Tooltip("seats:Q", title="Unassigned", format=","),
            ],
        )
    )
    return _finish(chart, max(120, 26 * len(values)))


def changes(moves: Mapping[str, int], order: Sequence[str]) -> Any:
    """Seats gained and lost by kind, as bars to both sides."""
    values = [{"kind": words.kind(name), "seats": moves.get(name, 0)} for name in order]
    chart = (
        alt.Chart(pa.Table.from_pylist(values), description="Seats gained and lost by kind of change")
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X("seats:Q", title=None, axis=alt.Axis(labelExpr=_SHORT, tickCount=5)),
            y=alt.Y("kind:N", title=None, sort=None, axis=alt.Axis(ticks=False, domain=False)),
            color=alt.condition("datum.seats >= 0", alt.value(GAIN), alt.value(LOSS)),
            tooltip=[alt.Tooltip("kind:N", title="Kind"), alt.Tooltip("seats:Q", title="Seats", format="+,")],
        )
    )
    return _finish(chart, 190)


def _finish(chart: alt.Chart, height: int) -> Any:
    return (
        chart.properties(
            width="container",
            height=height,
            background="transparent",
            # its menu has a link to an editor on the internet
            usermeta={"embedOptions": {"actions": False}},
        )
        .configure_view(strokeWidth=0)
        .configure_axis(gridColor=_GREY, gridOpacity=0.25, labelFontSize=12, domainColor=_GREY)
    )
