"""What README.md shows of many tenants: three sandboxes in one project, of which one refuses the sign-in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cockpit_source.sandbox import TOKEN_SCOPE, ApiClient, SandboxTenant, running_sandbox

# name of the tenant, seed and customers of its sandbox
_TENANTS = (("north", 11, 12), ("south", 12, 8), ("west", 13, 20))
_COMMANDS = ("cockpit load --project many",)


def run_tenants(commands: Sequence[str] = _COMMANDS) -> str:
    """What the commands print; the folder reads as the home directory."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = ['[destination.duckdb]\ncredentials = "licences.duckdb"', "[sources.cockpit]\ndiscover = true"]
        config.append(f'token_scope = "{TOKEN_SCOPE}"')
        secrets = []
        for name, seed, customers in _TENANTS:
            api = stack.enter_context(running_sandbox(SandboxTenant(seed, customers, incidents=False)))
            api.tenant.domain = f"{name}.example"
            client = ApiClient(f"{name}-client", f"{name}-secret", "csp")
            # that of west was replaced, and the project has the old one
            known = ApiClient(client.id, "another", "csp") if name == "west" else client
            api.api_clients = {known.id: known}
            config.append(
                f'[sources.cockpit.tenants.{name}]\ntenant = "{name}.example"\nbase_url = "{api.base_url}"\n'
                f'token_url = "{api.token_url}"\nclient_id = "{client.id}"'
            )
            secrets.append(f'[sources.cockpit.tenants.{name}]\nclient_secret = "{client.secret}"')
        settings = Path(folder) / "many" / ".dlt"
        settings.mkdir(parents=True)
        (settings / "config.toml").write_text("\n".join(config) + "\n", encoding="utf-8")
        (settings / "secrets.toml").write_text("\n".join(secrets) + "\n", encoding="utf-8")
        lines = [line for command in commands for line in _run(command, Path(folder))]
    text = "\n".join(lines).replace(folder, "~")
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```"


def _run(command: str, folder: Path) -> list[str]:
    program, *arguments = shlex.split(command)
    names = {"HOME": str(folder), "DLT_DATA_DIR": f"{folder}/.dlt", "TERM": "dumb", "COLUMNS": "160"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        cwd=folder,
        env=os.environ | names,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return [f"$ {command}", done.stdout, f"(exit code {done.returncode})"]
