"""Starting, steering and stopping the sandbox, in this process and in one of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import requests

from cockpit_source.sandbox import (
    CSP_CLIENT,
    TOKEN_SCOPE,
    Faults,
    Sandbox,
    SandboxTenant,
    running_sandbox,
    serve,
    spawned_sandbox,
)

TENANT = SandboxTenant(customers=20, incidents=False)


def ask(sandbox: Sandbox, timeout: float = 5) -> requests.Response:
    customer_id, instance_id, _ = next(sandbox.tenant.scopes(0))
    token = sandbox.tokens.issue(CSP_CLIENT)
    return requests.get(
        f"{sandbox.base_url}/v1/Customers/{customer_id}/licenses",
        params={"providerInstanceId": instance_id},
        headers={
            "Authorization": f"Bearer {token}",
            "X-Tenant": "sandbox.example",
            "X-Correlation-Id": "my-call",
        },
        timeout=timeout,
    )


def test_running_sandbox_leaves_no_thread_and_no_open_port() -> None:
    before = set(threading.enumerate())
    with running_sandbox(TENANT) as sandbox:
        assert ask(sandbox).status_code == 200
        port = int(sandbox.base_url.rpartition(":")[2])
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_running_sandbox_stops_at_once_though_a_call_hangs() -> None:
    with running_sandbox(TENANT, faults=Faults(hang=1)) as sandbox:

        def hang() -> None:
            with suppress(requests.ConnectionError):
                ask(sandbox, timeout=20)

        caller = threading.Thread(target=hang)
        caller.start()
        while not sandbox.requests:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 1
    caller.join(timeout=2)
    assert not caller.is_alive()


def test_running_sandbox_leaves_no_thread_when_the_body_fails() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), running_sandbox(TENANT):
        1 / 0  # noqa: B018 - fails on purpose
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_host_that_is_not_loopback_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"use localhost, 127\.0\.0\.1 or ::1"), running_sandbox(host=host):
        pass


def test_port_that_is_taken_raises() -> None:
    with running_sandbox(TENANT) as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            serve(Sandbox(TENANT), port=port)


def test_sandbox_that_does_not_run_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="use running_sandbox"):
        Sandbox(TENANT).token_url  # noqa: B018 - the property raises


def test_request_log_holds_what_was_asked_and_answered() -> None:
    with running_sandbox(TENANT) as sandbox:
        ask(sandbox)
        (request,) = sandbox.requests
        assert (request.method, request.status, request.client_id) == ("GET", 200, "sandbox-csp")
        assert request.correlation_id == "my-call"
        assert request.path.startswith("/v1/Customers/")
        sandbox.clear_requests()
        assert sandbox.requests == []


def test_request_log_is_bounded() -> None:
    sandbox = Sandbox(TENANT, logged_requests=3)
    stop = threading.Event()
    ready = threading.Event()
    server = threading.Thread(
        target=serve, args=(sandbox,), kwargs={"port": 0, "on_ready": lambda _: ready.set(), "stop_after": stop.wait}
    )
    server.start()
    assert ready.wait(5)
    for _ in range(5):
        ask(sandbox)
    stop.set()
    server.join(timeout=2)
    assert not server.is_alive()
    assert len(sandbox.requests) == 3


def test_steering_over_http_moves_day_and_faults() -> None:
    with running_sandbox(TENANT) as sandbox:
        url = f"{sandbox.base_url}/_sandbox"
        assert requests.post(f"{url}/day", json={"day": 3}, timeout=5).json()["day"] == sandbox.day == 3
        state = requests.post(f"{url}/faults", json={"throttle": 0.25, "latency_ms": 5}, timeout=5).json()
        assert (state["faults"]["throttle"], state["faults"]["latency_ms"]) == (0.25, 5)
        assert requests.get(f"{url}/state", timeout=5).json() == state
        assert sandbox.requests == []


def test_customer_that_is_offboarded_has_neither_licences_nor_subscriptions() -> None:
    tenant = SandboxTenant(customers=20, incidents=False)
    customer_id, instance_id, _ = next(iter(tenant.scopes(0)))
    with spawned_sandbox(customers=20, incidents=False) as sandbox:
        token = requests.post(
            sandbox.token_url,
            data={
                "client_id": CSP_CLIENT.id,
                "client_secret": CSP_CLIENT.secret,
                "scope": TOKEN_SCOPE,
                "grant_type": "client_credentials",
            },
            timeout=5,
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "X-Tenant": tenant.domain}

        def read(path: str) -> Any:
            return requests.get(f"{sandbox.base_url}/v1/{path}", headers=headers, timeout=5).json()

        licenses = f"Customers/{customer_id}/licenses?providerInstanceId={instance_id}"
        subscriptions = f"customers/{customer_id}/subscriptions"
        assert read(licenses)
        before = read("subscriptions")["totalCount"]
        had = read(subscriptions)["totalCount"]
        assert had > 0
        sandbox.offboard(customer_id.upper())
        assert read(licenses) == []
        assert read(subscriptions)["totalCount"] == 0
        assert read("subscriptions")["totalCount"] == before - had


def test_undone_deletion_and_undone_offboarding_bring_everything_back(sandbox: Sandbox) -> None:
    customer_id, instance_id, _ = next(iter(sandbox.tenant.scopes(0)))
    before = sandbox.tenant.licenses(customer_id, instance_id, 0)
    sandbox.offboard(customer_id)
    assert before
    assert sandbox.tenant.licenses(customer_id, instance_id, 0) == []
    sandbox.restore(instance_id)
    assert sandbox.tenant.licenses(customer_id, instance_id, 0) == []
    sandbox.restore(customer_id)
    assert sandbox.tenant.licenses(customer_id, instance_id, 0) == before
    customer = sandbox.tenant.customer(customer_id)
    assert customer is not None
    sandbox.configure(deletion_delay_seconds=0)
    sandbox.deletions.accept("DeleteCustomer", customer, None, "a", "b", "Succeded")
    assert not sandbox.is_listed(customer, 0)
    assert requests.post(f"{sandbox.base_url}/_sandbox/undo-deletions", timeout=5).json()["deletions"] == 0
    assert sandbox.is_listed(customer, 0)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("offboard", b'{"customer_ids": ["nobody"]}'),
        ("offboard", b'{"customer_ids": "nobody"}'),
        ("day", b'{"day": -1}'),
        ("day", b'{"day": "1"}'),
        ("day", b"{}"),
        ("day", b"[1]"),
        ("day", b"day=1"),
        ("faults", b'{"thunder": 1}'),
        ("faults", b'{"reset": 2}'),
    ],
)
def test_steering_with_a_wrong_body_is_400_and_changes_nothing(name: str, body: bytes) -> None:
    with running_sandbox(TENANT) as sandbox:
        before = sandbox.day, sandbox.faults.as_dict()
        answer = requests.post(f"{sandbox.base_url}/_sandbox/{name}", data=body, timeout=5)
        assert answer.status_code == answer.json()["statusCode"] == 400
        assert (sandbox.day, sandbox.faults.as_dict()) == before


def test_spawned_sandbox_is_the_same_tenant_and_ends_with_the_context() -> None:
    with spawned_sandbox(customers=20, incidents=False, day=1, latency_ms=1, warm_up=True) as sandbox:
        state = sandbox.state()
        assert (state["day"], state["customers"], state["faults"]["latency_ms"]) == (1, 20, 1)
        assert sandbox.set_day(2)["day"] == 2
        assert sandbox.set_faults(reset=0.5)["faults"]["reset"] == 0.5
        with pytest.raises(ValueError, match="unknown fault"):
            sandbox.set_faults(thunder=1)
    with pytest.raises(ProcessLookupError):
        os.kill(sandbox.pid, 0)


def test_spawned_sandbox_that_cannot_start_raises() -> None:
    with pytest.raises(RuntimeError, match="before it was ready"), spawned_sandbox(customers=0):
        pass


def test_spawned_sandbox_dies_with_its_parent() -> None:
    code = (
        "import time\n"
        "from cockpit_source.sandbox import spawned_sandbox\n"
        "with spawned_sandbox(customers=5) as sandbox:\n"
        "    print(sandbox.base_url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    address = ("127.0.0.1", int(parent.stdout.readline().rpartition(":")[2]))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert refuses_within(address, seconds=3)


def refuses_within(address: tuple[str, int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=1).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.05)
    return False


def test_process_that_is_interrupted_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cockpit_source.sandbox", "--customers=5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, "")
