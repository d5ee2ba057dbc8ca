"""The sandbox as a process: `python -m cockpit_source.sandbox`. Writes its base URL as first line."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from cockpit_source.sandbox.faults import Faults
from cockpit_source.sandbox.server import serve
from cockpit_source.sandbox.settings import Settings
from cockpit_source.sandbox.state import Sandbox
from cockpit_source.sandbox.tenant import SandboxTenant


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a sandbox as the arguments say, until interrupted."""
    options = _parser().parse_args(arguments)
    tenant = SandboxTenant(
        options.seed, options.customers, options.mean_skus, not options.no_incidents, options.moving_share
    )
    faults = Faults(latency_ms=options.latency_ms, latency_jitter_ms=options.latency_jitter_ms)
    sandbox = Sandbox(tenant, day=options.day, faults=faults, token_lifetime_seconds=options.token_lifetime_seconds)
    sandbox.configure(**{name: value for name, value in vars(options).items() if name in Settings.all_settings})
    if options.warm_up:
        sandbox.warm_up()
    stop_after = _wait_for_end_of_stdin if options.until_stdin_closes else None
    serve(sandbox, options.host, options.port, on_ready=_write_line, stop_after=stop_after)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cockpit_source.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--customers", type=int, default=120)
    parser.add_argument("--mean-skus", type=float, help="mean number of rows per scope, 1 to 20")
    parser.add_argument("--no-incidents", action="store_true", help="every customer stays and answers")
    parser.add_argument("--moving-share", type=float, default=1, help="share of customers whose seats change")
    parser.add_argument("--day", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--latency-jitter-ms", type=float, default=0)
    parser.add_argument("--token-lifetime-seconds", type=float, default=3599)
    parser.add_argument("--warm-up", action="store_true", help="make the answers of the day in advance")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the parent process is gone")
    _add_settings(parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    settings = parser.add_argument_group("where the API's reference leaves it open")
    types: dict[str, Callable[[str], object]] = {
        "deletion_delay_seconds": float,
        "page_churn": int,
        "calls_per_second": float,
    }
    for name, setting in Settings.all_settings.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(setting.default, bool):
            settings.add_argument(option, action="store_true")
        else:
            settings.add_argument(option, type=types.get(name, str), default=setting.default, help=setting.valid_text)


def _write_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _wait_for_end_of_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass


if __name__ == "__main__":
    main()
