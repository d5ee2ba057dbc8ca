"""What plan, apply and verify work with: settings, the ledger, the API for reading, and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dlt

from cockpit_source.client import CockpitClient
from cockpit_source.configuration import project_folder
from cockpit_source.deletions.history import History
from cockpit_source.deletions.inventory import Inventory, open_inventory
from cockpit_source.deletions.ledger import Ledger, LedgerRecord, open_ledger
from cockpit_source.deletions.live import LiveReader
from cockpit_source.deletions.protected import ProtectedCustomers, read_protected
from cockpit_source.deletions.records import Limits
from cockpit_source.deletions.settings import DeletionSettings
from cockpit_source.errors import ConfigurationError

Say = Callable[[str], None]


class Clock:
    """The time of day, UTC, and waiting; a test has one of its own."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Session:
    """One command at work. `actor` is who runs it, as the operating system names them."""

    pipeline: dlt.Pipeline
    settings: DeletionSettings
    ledger: Ledger
    client: CockpitClient
    clock: Clock
    actor: str
    say: Say

    @property
    def tenant_key(self) -> str:
        return self.settings.api.tenant_key

    @property
    def reader(self) -> LiveReader:
        """Reads of the API."""
        return LiveReader(self.client, page_size=self.settings.api.page_size)

    def inventory(self) -> AbstractContextManager[Inventory]:
        """The inventory, open while the context lasts."""
        return open_inventory(self.pipeline, self.tenant_key)

    def history(self) -> History:
        """What the ledger says now."""
        return History(self.ledger.records)

    def protected(self) -> ProtectedCustomers:
        """The list of protected customers as it is now. Raises ConfigurationError without one."""
        if self.settings.protected_file is None:
            raise ConfigurationError(
                "protected_file is missing: nothing is planned or deleted without it, and it may be an empty file."
            )
        return read_protected(self.settings.protected_file)

    def limits(self) -> Limits:
        """The limits as they are set now."""
        settings = self.settings
        return Limits(
            settings.max_actions,
            settings.max_percent,
            settings.max_actions_per_day,
            settings.max_age_hours,
            settings.grace_days,
            self.protected().content_hash,
        )

    def record(self, kind: str, *, body: dict[str, Any], **about: Any) -> LedgerRecord:
        """Append to the ledger. Raises LedgerUnavailable; nothing may be sent then."""
        return self.ledger.append(kind, at=self.clock.now(), actor=self.actor, body=body, **about)


@contextmanager
def open_session(
    pipeline: dlt.Pipeline,
    settings: DeletionSettings,
    *,
    actor: str,
    clock: Clock | None = None,
    say: Say = lambda _: None,
) -> Iterator[Session]:
    """A session, with the ledger open for writing, which only one process at a time may have.

    Raises:
        WarehouseBusy: another one has.
        LedgerUnavailable: the ledger cannot be opened.
    """
    with (
        open_ledger(pipeline, project_folder()) as ledger,
        CockpitClient(settings.api) as client,
    ):
        yield Session(pipeline, settings, ledger, client, clock or Clock(), actor, say)
