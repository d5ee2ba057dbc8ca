"""The day of the cost model: by hand on small numbers, and never far from the formula beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from simulated_day import Day, bound_of_day, simulate_day


def test_packages_of_4000_are_committed_while_the_next_comes_in() -> None:
    """Read after 4, 8 and 10 s; committed until 6, 10 and 12 s."""
    day = simulate_day(10_000, calls_per_second=1_000, package_seconds=2, run_seconds=1)
    assert day == Day(seconds=13, committing_seconds=7, packages=3)


def test_slow_warehouse_bounds_the_day() -> None:
    """Read after 4, 8 and 10 s; committed until 24, 44 and 64 s."""
    day = simulate_day(10_000, calls_per_second=1_000, package_seconds=20, run_seconds=1)
    assert day == Day(seconds=65, committing_seconds=61, packages=3)


def test_package_closes_a_minute_after_its_first_batch() -> None:
    """At 10 calls a second a batch comes every 10 s: seven are there at 70 s, seven more at 140 s, one is left."""
    day = simulate_day(1_500, calls_per_second=10, package_seconds=2, run_seconds=0)
    assert day.packages == 3
    assert day.seconds == pytest.approx(152)


@pytest.mark.parametrize("scopes", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("rate", [5, 50, 500, 5_000])
@pytest.mark.parametrize("package_seconds", [0.5, 5, 50])
def test_formula_is_near(scopes: int, rate: float, package_seconds: float) -> None:
    costs = {"calls_per_second": rate, "package_seconds": package_seconds, "run_seconds": 3.0}
    seconds, by_warehouse = bound_of_day(scopes, **costs)
    day = simulate_day(scopes, **costs)
    assert seconds == pytest.approx(day.seconds, rel=0.35)
    if by_warehouse:
        assert day.committing_seconds > 0.7 * day.seconds
