"""Pieces that pages are made of: cards of figures, notices, tables that can be downloaded."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import marimo as mo
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from cockpit_source.dashboard import words
from cockpit_source.wording import plural

PAGE_ROWS = 20


@dataclass(frozen=True, slots=True)
class Card:
    """One figure: what it is, its value as shown, and a line that says what it rests on.

    `name` is how tests and screen readers' scripts find it. `tone` is "", "good" or "warn".
    """

    name: str
    label: str
    value: str
    note: str = ""
    tone: str = ""


def cards(figures: Sequence[Card]) -> mo.Html:
    """Figures side by side, as many as fit."""
    return mo.Html(f'<dl class="ck-cards">{"".join(map(_card, figures))}</dl>')


def _card(card: Card) -> str:
    note = f'<dd class="ck-note">{words.text(card.note)}</dd>' if card.note else ""
    return (
        f'<div class="ck-card {card.tone}" data-figure="{words.text(card.name)}">'
        f'<dt class="ck-label">{words.text(card.label)}</dt><dd class="ck-value">{words.text(card.value)}</dd>{note}'
        "</div>"
    )


def heading(title: str, explanation: str = "") -> mo.Html:
    """A heading inside a page, with a sentence."""
    sentence = f'<p class="ck-explain">{words.text(explanation)}</p>' if explanation else ""
    return mo.Html(f'<h2 class="ck-heading">{words.text(title)}</h2>{sentence}')


def notice(title: str, sentences: Sequence[str], command: str = "") -> mo.Html:
    """A message in place of a page: what is so, why, and the command to run."""
    paragraphs = "".join(f"<p>{words.text(sentence)}</p>" for sentence in sentences)
    code = f"<pre><code>{words.text(command)}</code></pre>" if command else ""
    return mo.Html(
        f'<section class="ck-notice" role="status"><h2>{words.text(title)}</h2>{paragraphs}{code}</section>'
    )


def note(sentence: str) -> mo.Html:
    """A sentence in small print."""
    return mo.Html(f'<p class="ck-explain">{words.text(sentence)}</p>')


def stack(*parts: Any) -> mo.Html:
    """Parts below each other."""
    return mo.vstack([part for part in parts if part is not None], gap=1)


def side_by_side(*parts: mo.Html) -> mo.Html:
    """Parts beside each other where there is room, else below each other."""
    return mo.Html(f'<div class="ck-charts">{"".join(f"<div>{part.text}</div>" for part in parts)}</div>')


Format = Callable[[Any], str]

_FORMATS: Mapping[str, Format] = {
    "total_seats": words.count,
    "assigned_seats": words.count,
    "unassigned_seats": words.count,
    "reclaimable_seats": words.count,
    "over_assigned_seats": words.count,
    "suspended_seats": words.count,
    "seats_before": words.count,
    "seats_after": words.count,
    "assigned_before": words.count,
    "assigned_after": words.count,
    "customers": words.count,
    "skus": words.count,
    "row_count": words.count,
    "scopes": words.count,
    "failing_runs": words.count,
    "seat_change": words.change,
    "assignment_rate": words.share,
    "age_hours": words.age,
    "read_at": words.moment,
    "last_good_at": words.moment,
    "delisted_at": words.moment,
    "recorded_at": words.moment,
    "planned_at": words.moment,
    "result_at": words.moment,
    "kind": words.kind,
    "rows_checked": words.count,
    "rows_telling": words.count,
    "rows_holding": words.count,
    "share_holding": words.share,
    "holds": words.yes_or_no,
    "has_active_gdap": words.yes_or_no,
    "reclaimable_cost": words.amount,
    "unit_price": words.amount,
    "is_free": lambda value: "free" if value else "paid",
}
_LEFT = frozenset({"kind", "is_free", "holds", "has_active_gdap"})
_RIGHT = {name for name in _FORMATS if name not in _LEFT and not name.endswith("_at")} | {
    "http_status",
    "seq",
    "item",
}

# sentences, which would push everything beside them off the page
_WRAPPED = frozenset({"detail", "reason", "definition", "question"})

_HEADINGS = {
    "total_seats": "seats",
    "assigned_seats": "assigned",
    "unassigned_seats": "unassigned",
    "reclaimable_seats": "reclaimable",
    "over_assigned_seats": "over-assigned",
    "reclaimable_cost": "cost of reclaimable",
    "suspended_seats": "suspended",
    "assignment_rate": "assignment rate",
    "age_hours": "age",
    "is_free": "free or paid",
    "skus": "SKUs",
    "row_count": "rows",
    "http_status": "HTTP status",
    "last_good_at": "last read well",
    "delisted_at": "delisted",
    "recorded_at": "recorded",
    "planned_at": "planned",
    "result_at": "result since",
    "has_active_gdap": "active GDAP",
}


def table(rows: pa.Table, file_name: str, *, hidden: Sequence[str] = (), empty: str = "No rows.") -> mo.Html:
    """A paged table, of which the browser gets one page at a time, and all of it as CSV on request.

    The CSV holds every column with the values as they are in the marts; `hidden` columns are only there.
    """
    if not rows.num_rows:
        return note(empty)
    # a column that nobody filled, such as part numbers without a catalogue, only takes room, and so does one tenant
    names = {
        name: _heading(name)
        for name in rows.column_names
        if name not in hidden
        and rows[name].null_count < rows.num_rows
        and (name != "tenant" or pa.compute.count_distinct(rows[name]).as_py() > 1)
    }
    shown = rows.select(list(names)).rename_columns(list(names.values()))
    view = mo.ui.table(
        shown,
        selection=None,
        pagination=True,
        page_size=PAGE_ROWS,
        show_column_summaries=False,
        show_data_types=False,
        show_download=False,
        format_mapping={heading: _FORMATS.get(name, words.cell) for name, heading in names.items()},
        text_justify_columns={heading: "right" if name in _RIGHT else "left" for name, heading in names.items()},
        wrapped_columns=[heading for name, heading in names.items() if name in _WRAPPED],
        max_columns=None,
    )
    # first, since every cell of the table is a stop for the keyboard
    return mo.vstack([download(rows, file_name), view], gap=0.5)


def sums_by_kind(rows: pa.Table, *summed: str) -> dict[str, dict[str, Any]]:
    """By the column kind: how many rows and customers, and the sums of columns."""
    wanted: list[tuple[str, str]] = [("kind", "count"), ("customer_id", "count_distinct")]
    found = rows.group_by("kind").aggregate(wanted + [(name, "sum") for name in summed])
    return {row["kind"]: row for row in found.to_pylist()}


def of_kind(rows: pa.Table, kind: str) -> pa.Table:
    """The rows of one kind."""
    return rows.filter(pa.compute.equal(rows["kind"], kind))


def download(rows: pa.Table, file_name: str) -> mo.Html:
    """A button for all rows as CSV, which is made when it is pressed."""
    label = f"Download CSV ({plural(rows.num_rows, 'row')})"
    button = mo.download(lambda: to_csv(rows), filename=f"{file_name}.csv", mimetype="text/csv", label=label)
    return mo.Html(f"<div>{button.text}</div>")


def to_csv(rows: pa.Table) -> bytes:
    """The rows as CSV in UTF-8, a line of names first; what is not known is empty."""
    target = io.BytesIO()
    pyarrow.csv.write_csv(rows, target)
    return target.getvalue()


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name.replace("_", " "))
