"""A report as its reader sees it: figures, tables and whatever it would fetch, read out of the HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_ADDRESSES = ("src", "srcset", "href", "action", "data", "poster", "formaction", "background", "xlink:href")


@dataclass
class ReportPage(HTMLParser):
    """The text of cards by name, the rows of tables by name, and the addresses in attributes."""

    figures: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._figure = ""
        self._rows: list[list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.addresses += [values[name] for name in _ADDRESSES if name in values]
        self._open.append(tag)
        if "data-figure" in values:
            self._figure = values["data-figure"]
            self.figures[self._figure] = ""
        if "data-table" in values:
            self._rows = self.tables.setdefault(values["data-table"], [])
        if tag == "tr" and self._rows is not None:
            self._rows.append([])
        if tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
        if tag in ("meta", "link", "br"):
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            self._rows = None
        if tag in ("div", "span"):
            self._figure = ""

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "script" in self._open:
            return
        self.text += data
        if self._figure and ("dd" in self._open or "span" in self._open):
            self.figures[self._figure] += data.strip()
        if self._rows and self._rows[-1] and ("td" in self._open or "th" in self._open) and "small" not in self._open:
            self._rows[-1][-1] += data.strip()


def read_report(path: Path) -> ReportPage:
    """The page of a file."""
    page = ReportPage()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page
