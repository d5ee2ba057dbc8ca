"""The spool of one run: results on disk as Parquet batches, before anything is loaded.

A folder per run: `run.json`, the scope list, and `batches/<seq>.parquet` with one row per scope. A batch file
appears whole or not at all. A batch that was loaded has a `<seq>.loaded` file beside it. `<seq>.held.parquet` has
emptied scopes, which wait for the end of the run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cockpit_source.drop_guard import mark_emptied
from cockpit_source.errors import CockpitError
from cockpit_source.outcomes import ScopeResult
from cockpit_source.scopes import GOOD_OUTCOMES, PriorState
from cockpit_source.shards import FINISH
from cockpit_source.tables import COUNT, FLAG, TEXT, TIME
from cockpit_source.transforms import LicenseRow, RejectedRow

SPOOL_FORMAT = 2
BATCH_SCOPES = 100
# a scope that was not tried has a row or two and no licences; so many of them count as one that was
SKIPPED_AS_ONE = 25
BATCH_ROWS = 20_000

HELD = ".held"
SKIPPED = ".skipped"
_LICENSE_TYPE = pa.struct(
    [
        pa.field("sku_id", TEXT, False),
        pa.field("occurrence", COUNT, False),
        ("sku_name", TEXT),
        ("total_licenses", COUNT),
        ("consumed_licenses", COUNT),
        ("available_licenses", COUNT),
        ("suspended_licenses", COUNT),
        ("is_selected", FLAG),
        ("extra", TEXT),
        pa.field("row_hash", TEXT, False),
    ]
)
_REJECTED_TYPE = pa.struct(
    [pa.field("position", COUNT, False), pa.field("reason", TEXT, False), pa.field("raw", TEXT, False)]
)
_PRIOR_TYPES = dict.fromkeys(PriorState._fields, TEXT) | {
    "first_seen_at": TIME,
    "last_good_at": TIME,
    "delisted_at": TIME,
    "failing_runs": COUNT,
    "has_active_gdap": FLAG,
    "held_licenses": COUNT,
}
BATCH_SCHEMA = pa.schema(
    [
        pa.field("scope_key", TEXT, False),
        pa.field("customer_id", TEXT, False),
        pa.field("provider_instance_id", TEXT, False),
        ("reseller_id", TEXT),
        pa.field("outcome", TEXT, False),
        ("http_status", COUNT),
        ("error_type", TEXT),
        ("error_description", TEXT),
        ("correlation_id", TEXT),
        ("server_correlation_id", TEXT),
        pa.field("attempts", COUNT, False),
        pa.field("duration_ms", COUNT, False),
        ("license_count", COUNT),
        pa.field("observed_at", TIME, False),
        ("prior", pa.struct(list(_PRIOR_TYPES.items()))),
        ("licenses", pa.list_(_LICENSE_TYPE)),
        ("rejected", pa.list_(_REJECTED_TYPE)),
    ]
)
_LISTS = ("licenses", "rejected")


def batch_results(results: Iterable[ScopeResult], scopes: int = BATCH_SCOPES) -> Iterator[list[ScopeResult]]:
    """`results` in lists of up to `scopes`, fewer where their licence rows are many, more where they were skipped."""
    batch: list[ScopeResult] = []
    weight = 0.0
    rows = 0
    for result in results:
        batch.append(result)
        weight += weigh(result)
        rows += len(result.rows) + len(result.rejected)
        if weight >= scopes or rows >= BATCH_ROWS:
            yield batch
            batch, weight, rows = [], 0.0, 0
    if batch:
        yield batch


def weigh(result: ScopeResult) -> float:
    """How much a result takes of a batch or a package: 1, less when the scope was skipped."""
    return 1 / SKIPPED_AS_ONE if result.outcome == "skipped" else 1.0


def to_batch(results: Sequence[ScopeResult]) -> pa.Table:
    """`results` as a table of `BATCH_SCHEMA`, one row per scope."""
    columns: dict[str, Any] = {
        "scope_key": [r.listed.scope_key for r in results],
        "customer_id": [r.listed.scope.customer_id for r in results],
        "provider_instance_id": [r.listed.scope.provider_instance_id for r in results],
        "reseller_id": [r.listed.scope.reseller_id for r in results],
        "outcome": [r.outcome for r in results],
        "http_status": [r.call.http_status for r in results],
        "error_type": [r.error_type for r in results],
        "error_description": [r.error_description for r in results],
        "correlation_id": [r.call.correlation_id for r in results],
        "server_correlation_id": [r.call.server_correlation_id for r in results],
        "attempts": [r.call.attempts for r in results],
        "duration_ms": [r.call.duration_ms for r in results],
        "license_count": [r.license_count for r in results],
        "observed_at": [r.observed_at for r in results],
        "prior": _to_structs([r.listed.prior for r in results], BATCH_SCHEMA.field("prior").type),
        "licenses": _to_lists([r.rows for r in results], _LICENSE_TYPE),
        "rejected": _to_lists([r.rejected for r in results], _REJECTED_TYPE),
    }
    return pa.table(columns, schema=BATCH_SCHEMA)


def _to_structs(records: Sequence[tuple[Any, ...]], type_: pa.DataType) -> pa.Array:
    fields = [type_.field(index) for index in range(type_.num_fields)]
    columns = list(zip(*records, strict=True)) or [()] * len(fields)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, fields, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def _to_lists(groups: Sequence[Sequence[LicenseRow] | Sequence[RejectedRow]], type_: pa.DataType) -> pa.Array:
    offsets = [0]
    for group in groups:
        offsets.append(offsets[-1] + len(group))
    records = [record for group in groups for record in group]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _to_structs(records, type_))


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What has to be known to carry on or close a run after a kill. Times are UTC.

    `is_discovered`: the list came from the API's listings; `listing_problem` says why they may lack scopes,
    `customers_listed` how many customers a complete listing held. `shard` and `list_begun_at` as in `runs`.
    """

    run_id: str
    tenant_key: str
    started_at: datetime
    full_list: bool
    as_of: datetime | None
    total: int
    listed: int
    scopes_hash: str
    is_discovered: bool = False
    listing_problem: str | None = None
    customers_listed: int | None = None
    shard: str | None = None
    list_begun_at: datetime | None = None
    spool_format: int = SPOOL_FORMAT

    @property
    def is_part(self) -> bool:
        """Whether it is a shard, so that it decides nothing about the list as a whole."""
        return self.shard not in (None, FINISH)


class Spool:
    """The folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batches = folder / "batches"
        self._next = max((int(path.name[:6]) + 1 for path in self._batches.glob("*.parquet")), default=0)

    @classmethod
    def create(cls, folder: Path) -> Spool:
        (folder / "batches").mkdir(parents=True)
        return cls(folder)

    def write_info(self, info: RunInfo) -> None:
        """Write `run.json`; a folder without one is the rest of a run that never began."""
        text = json.dumps(asdict(info), default=datetime.isoformat, indent=1)
        _publish(self.folder / "run.json", text.encode())

    def read_info(self) -> RunInfo | None:
        """The run that the folder belongs to, or None when it never began or cannot be read."""
        try:
            record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
            for name in ("started_at", "as_of", "list_begun_at"):
                record[name] = record.get(name) and datetime.fromisoformat(record[name])
            # of another version of this package: its batches have other columns
            return RunInfo(**record) if record.get("spool_format") == SPOOL_FORMAT else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_batch(self, batch: pa.Table, kind: str = "") -> Path:
        """Write one batch; it exists whole or not at all, also after a power cut.

        `kind`: HELD for emptied scopes, which wait for the end, SKIPPED for those that were not tried.
        """
        path = self._batches / f"{self._next:06d}{kind}.parquet"
        self._next += 1
        self.rewrite_batch(path, batch)
        return path

    def rewrite_batch(self, path: Path, batch: pa.Table) -> None:
        """Put `batch` in the place of one that was written."""
        _publish(path, encode_batch(batch))

    def batches(self) -> list[Path]:
        """All batches, in the order in which they were written."""
        return sorted(self._batches.glob("*.parquet"))

    def pending_batches(self) -> list[Path]:
        """The batches that were not loaded yet, without those that wait for the end."""
        held = set(self.held_batches())
        return [path for path in self.batches() if path not in held and not path.with_suffix(".loaded").exists()]

    def held_batches(self) -> list[Path]:
        """The batches of emptied scopes, loaded or not."""
        return sorted(self._batches.glob(f"*{HELD}.parquet"))

    def scope_count(self) -> int:
        """Scopes that were tried and have an outcome in the spool, loaded or not."""
        skipped = set(self._skipped_batches())
        return sum(pq.read_metadata(path).num_rows for path in self.batches() if path not in skipped)

    def forget_skipped(self) -> None:
        """Let the scopes that were not tried be tried: for a run that is carried on."""
        for path in self._skipped_batches():
            path.with_suffix(".loaded").unlink(missing_ok=True)
            path.unlink()

    def _skipped_batches(self) -> list[Path]:
        return sorted(self._batches.glob(f"*{SKIPPED}.parquet"))

    def size(self) -> int:
        """Bytes of all files of the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def mark_loaded(self, batches: Sequence[Path]) -> None:
        for path in batches:
            path.with_suffix(".loaded").touch()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def list_spools(folder: Path) -> list[Spool]:
    """The spools in the work folder of a pipeline, oldest run first; none before its first load."""
    return [Spool(path) for path in sorted(folder.glob("*")) if path.is_dir()]


def read_batch(path: Path) -> pa.Table:
    """One batch, as a table of `BATCH_SCHEMA`."""
    return pq.read_table(path, schema=BATCH_SCHEMA)


def encode_batch(batch: pa.Table) -> bytes:
    """One batch as the content of a file."""
    sink = pa.BufferOutputStream()
    pq.write_table(batch, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def split_batch(batch: pa.Table) -> list[tuple[pa.Table, str]]:
    """The rows of `batch` by the kind of their file, `write_batch` says which; none without a row."""
    is_skipped = pc.equal(batch["outcome"], "skipped")
    is_emptied = mark_emptied(batch)
    is_tried = pc.invert(pc.or_(is_skipped, is_emptied))
    parts = [(batch.filter(mask), kind) for mask, kind in ((is_emptied, HELD), (is_tried, ""), (is_skipped, SKIPPED))]
    return [(part, kind) for part, kind in parts if part.num_rows]


def fail_batch(batch: pa.Table, reason: str) -> tuple[pa.Table, Counter[str], int]:
    """`batch` with every scope that was read as failed and without rows; their former outcomes, and licence rows.

    For a batch whose rows the destination does not take; `reason` is what it said.
    """
    was_read = pc.is_in(batch["outcome"], pa.array(GOOD_OUTCOMES))
    outcomes = Counter(batch["outcome"].filter(was_read).to_pylist())
    rows = int(pc.sum(pc.list_value_length(batch["licenses"])).as_py() or 0)
    columns = {
        "outcome": pc.if_else(was_read, "failed", batch["outcome"]),
        "error_type": pc.if_else(was_read, "refused_by_destination", batch["error_type"]),
        "error_description": pc.if_else(was_read, reason, batch["error_description"]),
        "license_count": pc.if_else(was_read, pa.scalar(None, COUNT), batch["license_count"]),
    }
    columns |= {name: _to_lists([()] * len(batch), BATCH_SCHEMA.field(name).type.value_type) for name in _LISTS}
    arrays = [columns.get(field.name, batch[field.name]) for field in BATCH_SCHEMA]
    return pa.table(arrays, schema=BATCH_SCHEMA), outcomes, rows


def read_batches(paths: Sequence[Path], scopes_at_once: int = 1_000) -> Iterator[pa.Table]:
    """The batches of `paths`, several joined into one table, since dlt handles few large tables faster."""
    group: list[pa.Table] = []
    rows = 0
    for path in paths:
        group.append(read_batch(path))
        rows += group[-1].num_rows
        if rows >= scopes_at_once:
            yield pa.concat_tables(group).combine_chunks()
            group, rows = [], 0
    if group:
        yield pa.concat_tables(group).combine_chunks()


def _publish(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise CockpitError(
            f"The work folder {path.parent} cannot be written: {error.strerror or error}. Free space or correct the "
            "permissions, then run again; the load carries on."
        ) from error
