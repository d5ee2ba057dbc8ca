"""`cockpit sandbox`: serve a simulated tenant, and the project folder that points a load at it."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cockpit_source.errors import ConfigurationError
from cockpit_source.pipeline import DEFAULT_DATABASE
from cockpit_source.report import create_console
from cockpit_source.sandbox import CSP_CLIENT, FAULT_KINDS, TOKEN_SCOPE, Faults, Sandbox, SandboxTenant, serve

DEFAULT_PORT = 8765

_HEADER = "# Points at the sandbox, a simulated tenant on this machine."


def serve_sandbox(
    *,
    port: int,
    seed: int,
    customers: int,
    domain: str,
    day: int,
    latency_ms: float,
    faults: Sequence[str],
    folder: Path | None,
) -> None:
    """Serve until interrupted; with `folder`, write a project for it first.

    Raises:
        ConfigurationError: a fault or the port does not work.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", domain):
        raise ConfigurationError(f"--domain {domain} is no domain. Valid: one such as north.example.")
    tenant = SandboxTenant(seed, customers, domain=domain)
    sandbox = Sandbox(tenant, day=day, faults=_parse_faults(faults, latency_ms))
    console = create_console()

    def announce(base_url: str) -> None:
        if folder is not None:
            _write_project(folder, tenant, base_url)
        console.print(f"Simulated tenant {tenant.domain}, day {day}, at {base_url} (Ctrl+C stops it)")
        if folder is not None:
            console.print(
                f"Load it from another terminal: cockpit load --project {folder}", markup=False, soft_wrap=True
            )
        sys.stdout.flush()

    try:
        serve(sandbox, port=port, on_ready=announce)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ConfigurationError(f"Port {port} cannot be used: {reason}. Choose another with --port.") from None


def write_project(
    folder: Path,
    tenant: SandboxTenant,
    base_url: str,
    *,
    database: str = DEFAULT_DATABASE,
    list_day: int | None = None,
    more: Sequence[str] = (),
) -> None:
    """A project folder for the sandbox at `base_url`: configuration and its (public) secrets.

    It discovers its scopes, or with `list_day` loads those of that day from a file. `more` are lines of TOML for
    `[sources.cockpit]`. In the project of an earlier
    sandbox only the addresses are changed; what a user added stays.

    Raises ConfigurationError where the folder holds another project, which is left as it is.
    """
    settings = folder / ".dlt"
    _refuse_other_project(folder, settings)
    settings.mkdir(parents=True, exist_ok=True)
    if list_day is None and _move_project(settings, base_url):
        return
    discovery = "discover = true\ngdap_relationships = true"
    scopes_file = 'scopes_file = "scopes.csv"'
    added = "".join(f"{line}\n" for line in more)
    (settings / "config.toml").write_text(
        f"{_HEADER}\n"
        "[runtime]\ndlthub_telemetry = false\n\n"
        f'[sources.cockpit]\ntenant = "{tenant.domain}"\nbase_url = "{base_url}"\n'
        f'token_url = "{base_url}/oauth2/v2.0/token"\ntoken_scope = "{TOKEN_SCOPE}"\n'
        f"{discovery if list_day is None else scopes_file}\n{added}\n"
        f'[destination.duckdb]\ncredentials = "{database}"\n',
        encoding="utf-8",
    )
    (settings / "secrets.toml").write_text(
        f'[sources.cockpit]\nclient_id = "{CSP_CLIENT.id}"\nclient_secret = "{CSP_CLIENT.secret}"\n',
        encoding="utf-8",
    )
    if list_day is None:
        return
    with (folder / "scopes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("customer_id", "provider_instance_id", "reseller_id"))
        writer.writerows(tenant.scopes(list_day))


def _move_project(settings: Path, base_url: str) -> bool:
    """Point the discovering project of an earlier sandbox to this address; False where there is none."""
    config, secrets = settings / "config.toml", settings / "secrets.toml"
    if not (config.is_file() and secrets.is_file()):
        return False
    text = config.read_text(encoding="utf-8")
    if "\ndiscover = true\n" not in text:
        return False
    text = re.sub(r'^base_url = ".*"$', f'base_url = "{base_url}"', text, count=1, flags=re.MULTILINE)
    token_url = f'token_url = "{base_url}/oauth2/v2.0/token"'
    config.write_text(re.sub(r'^token_url = ".*"$', token_url, text, count=1, flags=re.MULTILINE), encoding="utf-8")
    return True


def _refuse_other_project(folder: Path, settings: Path) -> None:
    files = (settings / "config.toml", settings / "secrets.toml", folder / "scopes.csv")
    existing = [path for path in files if path.exists()]
    config = settings / "config.toml"
    is_ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(_HEADER)
    if existing and not is_ours:
        raise ConfigurationError(
            f"{existing[0]} is not of a sandbox and would be overwritten. Choose another folder with --project."
        )


def _write_project(folder: Path, tenant: SandboxTenant, base_url: str) -> None:
    try:
        write_project(folder, tenant, base_url)
    except OSError as error:
        raise ConfigurationError(
            f"The project cannot be written: {error.filename}: {error.strerror}. "
            "Choose another folder with --project."
        ) from None


def _parse_faults(texts: Sequence[str], latency_ms: float) -> Faults:
    settings = {"latency_ms": latency_ms}
    for text in texts:
        kind, _, rate = text.partition("=")
        try:
            settings[kind.strip()] = float(rate)
        except ValueError:
            raise ConfigurationError(
                f"--fault {text} is not KIND=RATE with a rate from 0 to 1. Kinds: {', '.join(FAULT_KINDS)}."
            ) from None
    try:
        sandbox_faults = Faults()
        sandbox_faults.configure(**settings)
        return sandbox_faults
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"--fault: {error}.") from None
