"""The licence inventory load as a script: `python pipelines/license_inventory.py [DATABASE]`.

Settings come from .dlt/config.toml and .dlt/secrets.toml of the current folder, or from the environment; see the
README. It does what `cockpit load` does, and is the place to add steps of your own before or after it.
"""

import sys

from cockpit_source import CockpitError, create_pipeline, resolve_settings, run_load


def main(database: str | None = None) -> int:
    """Load once; the exit code is that of `cockpit load`."""
    settings = resolve_settings()
    pipeline = create_pipeline(settings.tenant_key, database=database)
    result = run_load(pipeline, settings)
    print(f"{result.status}: {result.good} of {result.scopes_total} scopes, {result.license_rows} licence rows")
    for scope in result.unread_scopes:
        print(f"  not read: {scope.customer_id} {scope.outcome}: {scope.error_description}")
    if reason := result.sign_in_error or result.stop_reason or result.listing_problem:
        print(f"Error: {reason}", file=sys.stderr)
    return result.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:2]))
    except CockpitError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
