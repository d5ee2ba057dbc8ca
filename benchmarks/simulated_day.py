"""A day's load played through: batches come in at a rate, packages close as in a load, one is committed at a time."""

from __future__ import annotations

from dataclasses import dataclass

from cockpit_source.packages import PACKAGE_SCOPES, PACKAGE_SECONDS

BATCH_SCOPES = 100


@dataclass(frozen=True, slots=True)
class Day:
    """Seconds from the first call to the end, and how many of them the warehouse was committing."""

    seconds: float
    committing_seconds: float
    packages: int


def simulate_day(scopes: int, *, calls_per_second: float, package_seconds: float, run_seconds: float) -> Day:
    """One call a scope; a package costs the same however few scopes are in it, and closes 60 s after its first batch.

    While a package is committed the next one is collected, so that a slow warehouse gets whole packages.
    """
    free_at = committing = 0.0
    packages, at = 0, 0
    while at < scopes:
        first = min(at + BATCH_SCOPES, scopes) / calls_per_second
        # what has come in when the warehouse is free, or within a minute of the first batch
        closes_at = max(first + PACKAGE_SECONDS, free_at)
        taken = min(scopes - at, PACKAGE_SCOPES)
        whole_at = (at + taken) / calls_per_second
        if whole_at > closes_at:
            batches = int((closes_at * calls_per_second - at) // BATCH_SCOPES)
            taken = min(taken, max(1, batches) * BATCH_SCOPES)
        at += taken
        ready_at = min(whole_at, max(closes_at, at / calls_per_second))
        free_at = max(free_at, ready_at) + package_seconds
        committing += package_seconds
        packages += 1
    return Day(free_at + run_seconds, committing + run_seconds, packages)


def bound_of_day(
    scopes: int, *, calls_per_second: float, package_seconds: float, run_seconds: float
) -> tuple[float, bool]:
    """The same by a formula: seconds, and whether the warehouse bounds them instead of the calls."""
    calling = scopes / calls_per_second
    # at a low rate a package closes after a minute
    packages = max(
        scopes / PACKAGE_SCOPES, min(calling / (PACKAGE_SECONDS + BATCH_SCOPES / calls_per_second), scopes)
    )
    committing = packages * package_seconds
    return max(calling, committing) + package_seconds + run_seconds, committing > calling
