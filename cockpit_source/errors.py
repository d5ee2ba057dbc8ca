"""Every error of this package, grouped by what the reader does next.

CockpitError                 the message is written for the person who runs the load
├── ConfigurationError       a setting is missing or wrong: correct it        (exit 2)
│   └── ScopeListError       lines of a scope list do not fit: correct them   (exit 2)
│       └── EmptyScopeList   it has none
├── SignInError              no usable token: the run stops                   (exit 1)
│   └── SignInRefused        the credentials were turned down: replace them   (exit 5)
├── ApiError                 one call gave nothing that can be used: its scope is skipped
│   ├── InvalidRequest       400
│   ├── Forbidden            403
│   ├── NotFound             404
│   ├── Throttled            429 to the end, or asked to wait beyond our patience: retry later
│   ├── ServerFailed         5xx and other statuses that carry no licences
│   ├── TransportFailed      no complete answer arrived
│   └── UnusableAnswer       an answer outside the contract
├── DiscoveryFailed          discovery found nothing to load                  (exit 1)
├── ListUnavailable          the address of a list gives nothing: try again later (exit 1)
├── NothingToRetry           --retry-failed, and every scope was read        (exit 0)
│   └── EmptyShard           no scope of the list falls into the shard       (exit 0)
├── RunStopped               the run ended before this call
├── DeletionRefused          a guard of the deletions: nothing was sent       (exit 4)
│   └── LedgerUnavailable    their ledger cannot be written, or differs      (exit 4)
└── WarehouseError           the destination cannot be used                   (exit 2)
    ├── WarehouseBusy        another process holds it: try again              (exit 6)
    │   └── AnotherRun       it is another run of the same tenant             (exit 6)
    └── WarehouseRefused     it did not do what it was asked to               (exit 2)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

EXIT_ALL_READ = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_SOME_NOT_READ = 3
EXIT_GUARDED = 4
EXIT_SIGN_IN_REFUSED = 5
EXIT_BUSY = 6

# of several loads, the first that one of them has
EXIT_ORDER = (
    EXIT_CONFIGURATION,
    EXIT_BUSY,
    EXIT_SIGN_IN_REFUSED,
    EXIT_FAILED,
    EXIT_GUARDED,
    EXIT_SOME_NOT_READ,
    EXIT_ALL_READ,
)


def join_exit_codes(codes: Iterable[int]) -> int:
    """The exit code of several loads together; that of no load is 0."""
    return min(codes, key=EXIT_ORDER.index, default=EXIT_ALL_READ)


class CockpitError(Exception):
    """Root of all errors of this package; `str(error)` is safe and useful to print as it is."""

    exit_code = EXIT_FAILED


class ConfigurationError(CockpitError):
    """One or more settings are missing or wrong; names each key, where it may be set and the valid values."""

    exit_code = EXIT_CONFIGURATION


class ScopeListError(ConfigurationError):
    """Lines of a scope list do not fit; names all of them at once."""


class EmptyScopeList(ScopeListError):
    """A scope list without a line."""


class SignInError(CockpitError):
    """No usable token could be had, so no call can succeed."""


class SignInRefused(SignInError):
    """The sign-in service or the API turned the credentials down."""

    exit_code = EXIT_SIGN_IN_REFUSED


class DiscoveryFailed(CockpitError):
    """Discovery found no scope to load."""


class ListUnavailable(CockpitError):
    """The address of a list that a user supplies gave nothing that can be used; it may later."""


class NothingToRetry(CockpitError):
    """Every listed scope was read by the last run that held it."""

    exit_code = EXIT_ALL_READ
    status = "nothing to retry"


class EmptyShard(NothingToRetry):
    """No scope of the list falls into the shard."""

    status = "empty shard"


class RunStopped(CockpitError):
    """The run ended before this call was made."""


class DeletionRefused(CockpitError):
    """A guard of the deletions did its job: nothing was sent. `code` tells programs which, the first of several.

    `refusals` are all of them, each as code and text.
    """

    exit_code = EXIT_GUARDED

    def __init__(self, code: str, message: str, refusals: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.refusals = tuple(refusals) or ((code, message),)


class LedgerUnavailable(DeletionRefused):
    """The ledger cannot be read or written, or its two copies differ: nothing is sent."""

    def __init__(self, message: str, code: str = "ledger_unavailable") -> None:
        super().__init__(code, message)


class WarehouseError(CockpitError):
    """The destination cannot be opened, read or written."""

    exit_code = EXIT_CONFIGURATION


class WarehouseBusy(WarehouseError):
    """Another process holds the database."""

    exit_code = EXIT_BUSY


class AnotherRun(WarehouseBusy):
    """Another run of the same tenant and database, or another session of its ledger, is under way."""


class WarehouseRefused(WarehouseError):
    """The destination, or the way to it, failed; `reason` is what it said."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is known of a call, whether it succeeded or not.

    `correlation_id` is the one we sent with the last attempt, `server_correlation_id` the one in the
    API's error body (often missing). `duration_ms` covers all attempts and the waits between them.
    """

    http_status: int | None = None
    correlation_id: str | None = None
    server_correlation_id: str | None = None
    attempts: int = 0
    duration_ms: int = 0


@dataclass(eq=False)
class ApiError(CockpitError):
    """One call to the API gave nothing that can be used.

    `error_type` and `description` are the API's own where its body has them, else ours. `errors` holds the
    API's `errors[]` as pairs of property name and messages. `outcome` is what becomes of the scope. `transient`
    says whether another attempt may help, `retry_after_seconds` how long the API asked to wait before it.
    `is_documented`: the answer had the API's own error body, so that it was the API that said so and not something
    on the way.
    """

    error_type: str
    description: str
    call: CallRecord = field(default_factory=CallRecord)
    errors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    transient: bool = False
    retry_after_seconds: float | None = None
    is_documented: bool = False

    outcome: ClassVar[str] = "failed"
    next_step: ClassVar[str] = ""

    @property
    def summary(self) -> str:
        """What happened, without advice."""
        status = f"HTTP {self.call.http_status}, " if self.call.http_status else ""
        details = "".join(f"; {name}: {', '.join(messages)}" for name, messages in self.errors)
        ids = f" (correlation id {self.call.correlation_id})" if self.call.correlation_id else ""
        return f"{status}{self.error_type}: {self.description}{details}{ids}"

    def __str__(self) -> str:
        return f"{self.summary}. {self.next_step}" if self.next_step else self.summary


class InvalidRequest(ApiError):
    """400: the API does not accept the request; a provider instance that is not Microsoft's would fit here."""

    outcome = "invalid"
    next_step = "Check that the ids belong together and that the provider instance is a Microsoft one."


class Forbidden(ApiError):
    """403: the credentials may not read this scope; missing GDAP or a wrong reseller are usual reasons."""

    outcome = "forbidden"
    next_step = "Check the GDAP relationship of the customer, its reseller, and the role of the API access."


class NotFound(ApiError):
    """404: the scope does not exist for these credentials."""

    outcome = "not_found"
    next_step = "Check the customer id and the provider instance id, or take the scope off the list."


class Throttled(ApiError):
    """429 to the last attempt, or the API asked to wait longer than `patience_seconds`."""

    outcome = "deferred"
    next_step = "Run again later, or set max_requests_per_second lower."


class ServerFailed(ApiError):
    """5xx to the last attempt, or a status that the contract does not know."""

    next_step = "Run again later; if it stays, send the correlation id to CloudCockpit support."


class TransportFailed(ApiError):
    """No complete answer arrived: connection refused or reset, timeout, truncated body."""

    next_step = "Check the network and base_url, and run again."


class UnusableAnswer(ApiError):
    """An answer outside the contract, such as a sign-in page, another shape, or rows that do not fit."""

    next_step = "Check base_url; if it is right, send the correlation id to CloudCockpit support."
