"""The marts: SELECTs on the loaded tables, a dbt package in `dbt/`, and views by `cockpit marts`."""

from cockpit_source.marts.rendering import Mart, MartOptions, is_public, render_marts, seat_changes_sql

__all__ = ["Mart", "MartOptions", "is_public", "render_marts", "seat_changes_sql"]
