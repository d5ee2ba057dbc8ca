"""What is told of a load after it ended: to a command, and to a webhook. A failure here never fails the load.

Both get the same JSON object: `event` ("load_finished"), `tenant`, `run_id` (null when no run could begin), `status`
(of `runs`, or "failed"), `exit_code`, `error` (the message, null without one), and of a run that began
`scopes_total`, `scopes_read`, `outcomes`, `license_rows`, `delisted`, `requests`, `throttled`, `seconds`,
`stop_reason`, `listing_problem` and `guard` (what the drop guard held back). It holds no licence rows and no secret.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from cockpit_source.configuration import project_folder
from cockpit_source.errors import CockpitError
from cockpit_source.load_result import LoadResult
from cockpit_source.redaction import redact
from cockpit_source.settings import Settings
from cockpit_source.transport import describe_failure

COMMAND_SECONDS = 60
WEBHOOK_SECONDS = 10

Note = Callable[[str], None]


def tell_after_run(settings: Settings, outcome: LoadResult | CockpitError, note: Note) -> None:
    """Run the command and call the webhook where they are set; what goes wrong is noted."""
    if settings.after_run_command:
        _run_command(settings.after_run_command, describe(settings, outcome), note)
    if settings.after_run_webhook:
        _call_webhook(settings.after_run_webhook, describe(settings, outcome), note)


def describe(settings: Settings, outcome: LoadResult | CockpitError) -> dict[str, Any]:
    """The JSON object that is told."""
    body: dict[str, Any] = {"event": "load_finished", "tenant": settings.tenant_key, "run_id": None}
    if isinstance(outcome, CockpitError):
        return body | {"status": "failed", "exit_code": outcome.exit_code, "error": redact(str(outcome))}
    return body | {
        "run_id": outcome.run_id,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "error": None if outcome.sign_in_error is None else redact(str(outcome.sign_in_error)),
        "scopes_total": outcome.scopes_total,
        "scopes_read": outcome.good,
        "outcomes": dict(outcome.outcomes),
        "license_rows": outcome.license_rows,
        "delisted": outcome.delisted,
        "requests": outcome.requests,
        "throttled": outcome.throttled,
        "seconds": outcome.seconds,
        "stop_reason": outcome.stop_reason,
        "listing_problem": outcome.listing_problem,
        "guard": outcome.guard_message,
    }


def _run_command(command: str, body: Mapping[str, Any], note: Note) -> None:
    """Run it without a shell, with the JSON on its standard input; what it prints goes to stderr."""
    environment = {f"COCKPIT_{name.upper()}": str(body[name] or "") for name in ("run_id", "status", "tenant")}
    environment["COCKPIT_EXIT_CODE"] = str(body["exit_code"])
    named = ""
    try:
        arguments = shlex.split(command)
        # the program only: its arguments may hold a secret
        named = f" ({arguments[0]})"
        ended = subprocess.run(
            arguments,
            input=json.dumps(body),
            text=True,
            stdout=sys.__stderr__,
            cwd=project_folder(),
            env=os.environ | environment,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        note(f"after_run_command was stopped: it took longer than {COMMAND_SECONDS} s. The load is not affected.")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        note(f"after_run_command{named} could not be run: {reason}. The load is not affected.")
    else:
        if ended.returncode:
            note(f"after_run_command{named} ended with exit code {ended.returncode}. The load is not affected.")


def _call_webhook(url: str, body: Mapping[str, Any], note: Note) -> None:
    """POST the JSON once; the address is a secret, so only its host is ever named."""
    try:
        # a redirect would carry the body to another host
        answer = requests.post(url, json=body, timeout=WEBHOOK_SECONDS, allow_redirects=False)
        problem = "" if answer.ok and not answer.is_redirect else f"HTTP {answer.status_code}"
    except requests.ConnectionError as error:
        problem = describe_failure(error)
    except requests.RequestException as error:
        problem = type(error).__name__
    if problem:
        host = urlsplit(url).hostname
        note(f"after_run_webhook at {host} was not told of the load: {redact(problem)}. The load is not affected.")
