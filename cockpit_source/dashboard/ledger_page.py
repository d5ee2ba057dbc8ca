"""The page of the deletions ledger."""

from __future__ import annotations

from pathlib import Path

import marimo as mo

from cockpit_source.dashboard import parts, queries, words
from cockpit_source.dashboard.ledger_copy import LedgerBusy, LedgerMissing, read_ledger
from cockpit_source.dashboard.parts import Card


def ledger_page(path: Path) -> mo.Html:
    """Every planned deletion with what came of it, and every record, as the ledger at `path` is now."""
    try:
        counts, items, events = read_ledger(
            path, [queries.LEDGER_COUNTS, queries.LEDGER_ITEMS, queries.LEDGER_EVENTS]
        )
    except LedgerMissing:
        return parts.notice(
            "No deletions", [f"There is no ledger of deletions ({path.name}): none was ever planned here."]
        )
    except LedgerBusy as error:
        return parts.notice(
            "The ledger cannot be read now", [f"{error}.", "Open this tab again once the command has ended."]
        )
    (numbers,) = counts.to_pylist()
    return parts.stack(
        parts.heading(
            "Deletions ledger",
            "Every planned deletion and its last record, as the ledger is now. The filters above do not apply.",
        ),
        parts.cards(
            [
                Card("ledger_plans", "Plans", words.count(numbers["plans"])),
                Card("ledger_deletions", "Planned deletions", words.count(numbers["deletions"])),
                Card("ledger_events", "Records", words.count(numbers["events"])),
            ]
        ),
        parts.table(
            items,
            "deletion_plan_items",
            hidden=("customer_id", "provider_instance_id"),
            empty="No deletion was planned.",
        ),
        parts.heading("Records", "The newest first. `cockpit deletions log` checks their hashes too."),
        parts.table(events, "deletion_events", empty="No record yet."),
    )
