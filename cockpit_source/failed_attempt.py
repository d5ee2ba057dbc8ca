"""A load that ended before it had a run, such as by a refused sign-in: kept beside the spool, for `cockpit status`.

The table `runs` knows nothing of it. The next load that has a run removes it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cockpit_source.errors import CockpitError, ConfigurationError
from cockpit_source.redaction import redact
from cockpit_source.whole_file import write_whole

_NAME = "failed_attempt.json"


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """When it ended (UTC), the exit code of `cockpit load`, and the message."""

    ended_at: datetime
    exit_code: int
    message: str


def keep_failure(folder: Path, error: CockpitError) -> None:
    """Keep in the working `folder` of a tenant how a load ended; where it cannot be written, nothing is kept."""
    kept = {
        "ended_at": datetime.now(UTC).isoformat(),
        "exit_code": error.exit_code,
        "message": redact(str(error)),
    }
    with suppress(OSError, ConfigurationError):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _NAME, json.dumps(kept, ensure_ascii=False).encode())


def forget_failure(folder: Path) -> None:
    """A load had a run: what an earlier one failed of is over."""
    with suppress(OSError):
        (folder / _NAME).unlink(missing_ok=True)


def read_failure(folder: Path) -> FailedAttempt | None:
    """The last load of the tenant with this working `folder`, on this machine, where it ended before it had a run."""
    try:
        kept = json.loads((folder / _NAME).read_bytes())
        return FailedAttempt(datetime.fromisoformat(kept["ended_at"]), int(kept["exit_code"]), str(kept["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
