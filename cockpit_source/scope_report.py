"""`cockpit scopes`: the scope list as text or JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import dlt
from rich.console import Console

from cockpit_source.client import CockpitClient
from cockpit_source.fetch import utc_now
from cockpit_source.report import describe_scope
from cockpit_source.scope_listing import ScopeLister
from cockpit_source.settings import Settings
from cockpit_source.warehouse import Warehouse

_MAX_SHOWN = 50


def print_scopes(settings: Settings, pipeline: dlt.Pipeline, console: Console, *, as_json: bool) -> None:
    """Print the merged list; as JSON all of it, one object per line, as text the first 50.

    Raises:
        ScopeListError: lines that do not fit, or an empty list.
        DiscoveryFailed: discovery found nothing.
    """

    def say(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201 - what discovery has to say is no result

    with tempfile.TemporaryDirectory(prefix="cockpit-") as folder:
        with CockpitClient(settings) as client:
            lister = ScopeLister(settings, client, Warehouse(pipeline), only_scopes=True, note=say)
            scope_list = lister.prepare(Path(folder), utc_now()).scope_list
        if as_json:
            for listed in scope_list.iter_scopes():
                sys.stdout.write(json.dumps({"scope_key": listed.scope_key, **listed.scope._asdict()}) + "\n")
            return
        for listed in islice(scope_list.iter_scopes(), _MAX_SHOWN):
            console.print(describe_scope(listed.scope), soft_wrap=True)
        if scope_list.total > _MAX_SHOWN:
            console.print(f"... and {scope_list.total - _MAX_SHOWN} more; --json prints all of them")
        merged = scope_list.listed - scope_list.total
        console.print(f"{scope_list.total} scopes" + (f"; {merged} duplicate lines merged" if merged else ""))
