"""The marts as a script: `python pipelines/marts.py [DATABASE]`, after a load.

Settings come from .dlt/config.toml of the current folder, or from the environment; see the README. It does what
`cockpit marts` does, and is the place to add steps of your own before or after it.
"""

import sys

from cockpit_source import CockpitError, create_pipeline, refresh_marts, resolve_mart_settings


def main(database: str | None = None) -> None:
    """Load price list and SKU catalogue where they are set, and create the views anew."""
    settings = resolve_mart_settings()
    pipeline = create_pipeline(settings.tenant_key, database=database)
    result = refresh_marts(pipeline, settings, note=print)
    for note in result.notes:
        print(note)
    print(f"{len(result.marts.names)} views in {result.marts.location}, dataset {result.marts.dataset}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except CockpitError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
