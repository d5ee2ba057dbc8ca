"""What is told after a load, to a real command and a real web server, and that neither ever fails the load."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support import INSTANCE, Inventory, new_id, sku

from cockpit_source import hooks
from cockpit_source.errors import ScopeListError
from cockpit_source.load import LoadProgress
from cockpit_source.load_result import LoadResult

SCOPE = (new_id(1), INSTANCE, None)
OTHER = (new_id(2), INSTANCE, None)


class Receiver:
    """A web server that answers every POST with `status` and remembers the bodies."""

    def __init__(self) -> None:
        self.status = 200
        self.delay = threading.Event()
        self.hangs = False
        self.bodies: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append(json.loads(body))
                if receiver.hangs:
                    receiver.delay.wait(5)
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/T0p-secret?key=hidden"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiving = Receiver()
    thread = threading.Thread(target=receiving.server.serve_forever)
    thread.start()
    yield receiving
    receiving.delay.set()
    receiving.server.shutdown()
    receiving.server.server_close()
    thread.join()


def load(inventory: Inventory, **settings: Any) -> tuple[LoadResult, list[str]]:
    inventory.answer(SCOPE[0], [sku("e3")])
    progress = LoadProgress()
    result = inventory.load([SCOPE, OTHER], settings=settings, progress=progress)
    return result, progress.notes


def expected_body(result: LoadResult) -> dict[str, Any]:
    return {
        "event": "load_finished",
        "tenant": "sandbox.example",
        "run_id": result.run_id,
        "status": "partial",
        "exit_code": 3,
        "error": None,
        "scopes_total": 2,
        "scopes_read": 1,
        "outcomes": {"ok": 1, "not_found": 1},
        "license_rows": 1,
        "delisted": 0,
        "requests": 2,
        "throttled": 0,
        "seconds": result.seconds,
        "stop_reason": None,
        "listing_problem": None,
        "guard": None,
    }


def test_command_gets_the_result_on_its_input_and_in_its_environment(inventory: Inventory, tmp_path: Path) -> None:
    script = tmp_path / "told me.py"
    script.write_text(
        "import json, os, sys\n"
        "told = json.load(sys.stdin)\n"
        "told['environment'] = {n: v for n, v in os.environ.items() if n.startswith('COCKPIT_')}\n"
        "json.dump(told, open('told.json', 'w'))\n"
    )
    result, notes = load(inventory, after_run_command=f"{sys.executable} '{script}'")
    told = json.loads((tmp_path / "told.json").read_text())
    assert told.pop("environment") == {
        "COCKPIT_RUN_ID": result.run_id,
        "COCKPIT_STATUS": "partial",
        "COCKPIT_EXIT_CODE": "3",
        "COCKPIT_TENANT": "sandbox.example",
    }
    assert (told, notes) == (expected_body(result), [])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            f"{sys.executable} -c 'raise SystemExit(7)'",
            f"after_run_command ({sys.executable}) ended with exit code 7.",
        ),
        ("no-such-program", "after_run_command (no-such-program) could not be run: No such file"),
        ("unclosed 'quote", "after_run_command could not be run: No closing quotation."),
        (f"{sys.executable} -c 'import time; time.sleep(30)'", "after_run_command was stopped: it took longer"),
    ],
)
def test_command_that_fails_is_noted_and_costs_nothing(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, command: str, expected: str
) -> None:
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 1)
    result, (note,) = load(inventory, after_run_command=command)
    assert note.startswith(expected)
    assert note.endswith("The load is not affected.")
    assert (result.exit_code, len(inventory.rows("licenses"))) == (3, 1)


def test_webhook_gets_the_result(inventory: Inventory, receiver: Receiver) -> None:
    result, notes = load(inventory, after_run_webhook=receiver.url)
    assert (receiver.bodies, notes) == ([expected_body(result)], [])


@pytest.mark.parametrize("status", [302, 404, 500])
def test_webhook_that_does_not_take_it_is_noted_without_its_secret(
    inventory: Inventory, receiver: Receiver, status: int
) -> None:
    """A redirect is not followed, and nothing is sent twice."""
    receiver.status = status
    result, notes = load(inventory, after_run_webhook=receiver.url)
    expected = f"after_run_webhook at 127.0.0.1 was not told of the load: HTTP {status}. The load is not affected."
    assert (notes, result.exit_code, len(receiver.bodies)) == ([expected], 3, 1)


def test_webhook_that_hangs_or_is_not_there_costs_nothing(
    inventory: Inventory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "WEBHOOK_SECONDS", 0.3)
    receiver.hangs = True
    _, (slow,) = load(inventory, after_run_webhook=receiver.url)
    assert "was not told of the load: ReadTimeout" in slow
    _, (refused,) = load(inventory, after_run_webhook="http://127.0.0.1:9/T0p-secret")
    assert "127.0.0.1:9: Connection refused" in refused
    assert "secret" not in slow + refused


def test_load_that_could_not_begin_is_told_too(inventory: Inventory, receiver: Receiver) -> None:
    with pytest.raises(ScopeListError):
        inventory.load([("not an id", INSTANCE, None)], settings={"after_run_webhook": receiver.url})
    (body,) = receiver.bodies
    assert body.pop("error").startswith("The scopes list has 1 wrong line; nothing was loaded:")
    assert body == {
        "event": "load_finished",
        "tenant": "sandbox.example",
        "run_id": None,
        "status": "failed",
        "exit_code": 2,
    }


def test_refused_sign_in_is_told_with_its_reason(inventory: Inventory, receiver: Receiver) -> None:
    load(inventory, after_run_webhook=receiver.url, client_secret="wrong")
    (body,) = receiver.bodies
    assert (body["status"], body["exit_code"], body["scopes_read"]) == ("failed", 5, 0)
    assert body["error"].startswith("Sign-in was refused (HTTP 401")
