"""Rows of the tables as text, so that those of a warehouse can be counted against those of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from support import Row


def to_comparable(row: Row, labels: Mapping[str, str], wanted: Sequence[str] | None) -> Row:
    """The `wanted` columns, or all, without dlt's own; ids of runs by their label."""
    return {
        name: labels.get(value, value) if name.endswith("run_id") and value is not None else value
        for name, value in row.items()
        if not name.startswith("_dlt_") and (wanted is None or name in wanted)
    }


def to_text(row: Row) -> str:
    """The row as JSON; times in UTC."""
    return json.dumps(row, default=_time_to_text, sort_keys=True)


def _time_to_text(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
