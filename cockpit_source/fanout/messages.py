"""What goes between the process that loads, the desk on the scheduler, and the workers.

Their texts are what Dask may write into logs and dashboards, so they tell no id, name or secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cockpit_source.scopes import ListedScope
from cockpit_source.settings import Credentials, ScopeSettings, Settings
from cockpit_source.spool import SPOOL_FORMAT
from cockpit_source.version import __version__

PACKAGE = f"cockpit-source {__version__}, format {SPOOL_FORMAT}"
"""What caller, scheduler and workers must have in common."""


class TokenBox:
    """An access token on its way; its text does not show it. `serial` tells a renewed one from the one before."""

    def __init__(self, value: str, serial: int) -> None:
        self.value = value
        self.serial = serial

    def __repr__(self) -> str:
        return f"TokenBox({self.serial})"


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What a worker needs of the settings to make calls: no credentials, no scopes, nothing of the warehouse."""

    base_url: str = field(repr=False)
    tenant: str = field(repr=False)
    tenant_key: str = field(repr=False)
    max_concurrency: int
    max_attempts: int
    timeout_seconds: float
    patience_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> CallSettings:
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})

    def to_settings(self) -> Settings:
        """Settings for the client of a worker, which gets its tokens elsewhere."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Settings(credentials=Credentials(), scopes=ScopeSettings("tables"), **values)


@dataclass(frozen=True, slots=True)
class Shard:
    """Scopes that one task reads. `attempt` counts the times that they, or some of them, were given out."""

    run_id: str
    number: int
    attempt: int
    settings: CallSettings
    inbox: str = field(repr=False)
    scopes: tuple[ListedScope, ...] = field(repr=False)
    as_of: datetime | None = None

    @property
    def key(self) -> str:
        """The key of its task."""
        return f"cockpit-{self.run_id}-{self.number:06d}-{self.attempt}"

    def again(self, scopes: tuple[ListedScope, ...]) -> Shard:
        """The next attempt at what is left of it."""
        return replace(self, scopes=scopes, attempt=self.attempt + 1)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a shard: the names of its batches in the inbox, which may be of some of its scopes only.

    `failures_at_end`: how many of the last results in a row were failures; `has_success`: whether any was not.
    `problem`: why the inbox could not be used, or the desk not be reached.
    """

    batches: tuple[str, ...] = ()
    failures_at_end: int = 0
    has_success: bool = False
    stop_reason: str | None = None
    sign_in_error: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What the desk knows of a run and of its cluster.

    `silent` are the keys of tasks of which nothing was heard for too long, `stale` the workers of which that is true.
    """

    requests: int = 0
    throttled: int = 0
    in_flight: int = 0
    peak: int = 0
    allowed: int | None = None
    refused_serial: int = -1
    silent: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: dict[str, Any]) -> RunStatus:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        return cls(**values)
