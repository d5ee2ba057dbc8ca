"""The figures as one HTML page. Everything that comes from the data is escaped by the template engine."""

from __future__ import annotations

from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cockpit_source.dashboard import words
from cockpit_source.html_report.scales import place_bars, place_trend
from cockpit_source.version import __version__
from cockpit_source.wording import plural


def render_page(figures: dict[str, Any]) -> str:
    """The whole page."""
    return _environment().get_template("report.html.j2").render(figures)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cockpit_source.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count,
        "change": words.change,
        "share": words.share,
        "age": words.age,
        "moment": words.moment,
        "kind": words.kind,
        "cell": words.cell,
        "amount": words.amount,
        "not_assigned": words.not_assigned,
        "day": _day,
        "short_day": _short_day,
    }
    environment.globals |= {
        "money": words.money,
        "plural": plural,
        "yes_or_no": words.yes_or_no,
        "place_trend": place_trend,
        "place_bars": place_bars,
        "version": __version__,
    }
    return environment


def _day(value: date | None) -> str:
    """31 January 2026"""
    return words.NOT_TOLD if value is None else f"{value.day} {value:%B %Y}"


def _short_day(value: date) -> str:
    """31 Jan"""
    return f"{value.day} {value:%b}"
