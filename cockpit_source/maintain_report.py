"""What `cockpit maintain` prints."""

from __future__ import annotations

from rich.console import Console

from cockpit_source.maintain import ORPHANED_AFTER, LakeSize, Maintenance
from cockpit_source.report import create_table

_MIB = 2**20
_HOURS = int(ORPHANED_AFTER.total_seconds() // 3_600)


def print_maintenance(result: Maintenance, console: Console) -> None:
    """What was done, in a few lines."""
    console.print(f"Maintained {result.location}", markup=False, soft_wrap=True)
    if result.before and result.after:
        _print_lake(result, result.before, result.after, console)
    elif result.kind == "postgres":
        _print_postgres(result, console)
    else:
        before, after = result.bytes_before or 0, result.bytes_after or 0
        console.print(f"CHECKPOINT: {before / _MIB:.1f} MiB of file and log before, {after / _MIB:.1f} MiB after.")
        console.print(
            "The log is written into the file. Space of rows that were deleted is used again by the next rows; the "
            "file itself does not shrink.",
            soft_wrap=True,
        )


def _print_lake(result: Maintenance, before: LakeSize, after: LakeSize, console: Console) -> None:
    table = create_table("", "before", "after", right=("before", "after"))
    rows = (
        ("files of the tables", "files", 1),
        ("their MiB", "bytes", _MIB),
        ("files of all snapshots", "files_kept", 1),
        ("snapshots", "snapshots", 1),
    )
    for text, name, unit in rows:
        values = (getattr(size, name) for size in (before, after))
        table.add_row(text, *(f"{value:,}" if unit == 1 else f"{value / unit:,.1f}" for value in values))
    console.print(table)
    console.print(", ".join(f"{count:,} {what}" for what, count in result.done.items() if count) or "Nothing to do.")
    if result.waiting:
        console.print(
            f"{result.waiting:,} files are replaced or forgotten and wait for the end of --keep-days, since a query "
            "may still read them.",
            soft_wrap=True,
        )
    if result.orphans:
        console.print(
            f"{result.orphans:,} files over {_HOURS} h old below the data path are not in the catalogue, as a load "
            "leaves them that is killed. Where nothing else is kept there, --delete-orphans deletes them.",
            soft_wrap=True,
        )


def _print_postgres(result: Maintenance, console: Console) -> None:
    table = create_table("table", "rows", "dead rows", "MiB", right=("rows", "dead rows", "MiB"))
    for size in result.tables:
        table.add_row(size.name, f"{size.rows:,}", f"{size.dead_rows:,}", f"{size.bytes / _MIB:,.1f}")
    console.print(table)
    console.print(
        f"ANALYZE of {result.done['tables analyzed']} tables: the planner's statistics are those of now. Nothing "
        "else is needed: autovacuum makes the space of dead rows free for new ones. Where dead rows stay above rows "
        "for days, look whether autovacuum is on, and for sessions that are idle in a transaction.",
        soft_wrap=True,
    )
