"""A load that ended before it had a run, such as by a refused sign-in: kept beside the spool, for `cockpit status`.

The table `runs` knows nothing of it. The next load that has a run removes it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dlt

from cockpit_source.errors import CockpitError, ConfigurationError
from cockpit_source.pipeline import ordinary_name, work_folder
from cockpit_source.redaction import redact
from cockpit_source.whole_file import write_whole

_NAME = "failed_attempt.json"


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """When it ended (UTC), the exit code of `cockpit load`, and the message."""

    ended_at: datetime
    exit_code: int
    message: str


def keep_failure(pipeline: dlt.Pipeline, error: CockpitError) -> None:
    """Keep how a load ended, of a shard for the whole tenant; where it cannot be written, nothing is kept."""
    path = _locate(pipeline)
    kept = {
        "ended_at": datetime.now(UTC).isoformat(),
        "exit_code": error.exit_code,
        "message": redact(str(error)),
    }
    with suppress(OSError, ConfigurationError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(kept, ensure_ascii=False).encode())


def forget_failure(pipeline: dlt.Pipeline) -> None:
    """A load had a run: what an earlier one failed of is over."""
    with suppress(OSError):
        _locate(pipeline).unlink(missing_ok=True)


def read_failure(pipeline: dlt.Pipeline) -> FailedAttempt | None:
    """The last load of the tenant of `pipeline`, on this machine, where it ended before it had a run."""
    try:
        kept = json.loads(_locate(pipeline).read_bytes())
        return FailedAttempt(datetime.fromisoformat(kept["ended_at"]), int(kept["exit_code"]), str(kept["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _locate(pipeline: dlt.Pipeline) -> Path:
    return work_folder(pipeline).with_name(ordinary_name(pipeline)) / _NAME
