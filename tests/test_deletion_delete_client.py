"""The client that deletes: one request per call, and what came of it, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import TCPConnector
from fault_proxy import fault_proxy
from raw_server import head, raw_server
from support import new_id

from cockpit_source.deletions.delete_client import DeleteClient, Delivery
from cockpit_source.deletions.records import DELETE_CUSTOMER, REMOVE_RELATIONSHIP, Candidate
from cockpit_source.errors import SignInRefused
from cockpit_source.sandbox import (
    CSP_CLIENT,
    RESELLER_CLIENT,
    TOKEN_SCOPE,
    ApiClient,
    LoggedRequest,
    Sandbox,
    SandboxTenant,
    running_sandbox,
)
from cockpit_source.settings import Settings, build_settings

TENANT = SandboxTenant(customers=10, incidents=False)
CUSTOMER = TENANT.customers[0]
DELETION = Candidate(DELETE_CUSTOMER, CUSTOMER.id, None, "test")
REMOVAL = Candidate(REMOVE_RELATIONSHIP, CUSTOMER.id, CUSTOMER.provider_instance_ids[0], "test")
DOCUMENTED = {"statusCode": 404, "type": "NotFound", "description": "No such customer.", "correlationId": new_id(9)}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.deletions.undo()
    running.configure(deletion_delay_seconds=0, blocks_active_deletions=False)
    running.clear_requests()
    return running


def settings_of(
    base_url: str, *, sandbox: Sandbox | None = None, client: ApiClient = CSP_CLIENT, **changed: Any
) -> Settings:
    raw: dict[str, Any] = {"tenant": TENANT.domain, "base_url": base_url, "discover": True, "timeout_seconds": 5}
    if sandbox is None:
        raw |= {"access_token": "ready-token"}
    else:
        raw |= {"client_id": client.id, "client_secret": client.secret}
        raw |= {"token_url": sandbox.token_url, "token_scope": TOKEN_SCOPE}
    return build_settings(raw | changed)


def send(settings: Settings, candidate: Candidate = DELETION, correlation_id: str | None = None) -> Delivery:
    with DeleteClient(settings) as client:
        client.prepare()
        return client.send(candidate, correlation_id or str(uuid4()))


def deletes(sandbox: Sandbox) -> list[LoggedRequest]:
    return [request for request in sandbox.requests if request.method == "DELETE"]


@pytest.mark.parametrize("candidate", [DELETION, REMOVAL])
def test_202_is_accepted(sandbox: Sandbox, candidate: Candidate) -> None:
    correlation_id = str(uuid4())
    delivery = send(settings_of(sandbox.base_url, sandbox=sandbox), candidate, correlation_id)
    assert delivery == Delivery("accepted", 202, "HTTP 202: accepted", None, None, delivery.duration_ms)
    (request,) = deletes(sandbox)
    assert (request.path, request.correlation_id) == (DeleteClient.path_of(candidate), correlation_id)
    (deletion,) = sandbox.deletions.all()
    assert (deletion.customer.id, deletion.provider_instance_id) == (
        candidate.customer_id,
        candidate.provider_instance_id,
    )
    assert deletion.correlation_id == correlation_id


FAULTS: list[tuple[str, str, int | None, bool]] = [
    ("throttle", "throttled", 429, False),
    ("throttle_date", "throttled", 429, False),
    ("throttle_bare", "throttled", 429, False),
    ("error_500", "unknown", 500, False),
    ("html_503", "unknown", 503, False),
    ("reset", "unknown", None, False),
    ("truncated", "unknown", None, False),
    ("hang", "unknown", None, False),
    ("wrong_shape", "unknown", 200, True),
    ("sign_in_page", "unknown", 200, True),
    ("redirect", "unknown", 302, True),
    ("expired_token", "unauthorized", 401, False),
    ("oversized", "unknown", None, False),
    ("forbidden", "refused", 403, False),
]


@pytest.mark.parametrize(("fault", "result", "status", "is_outside"), FAULTS)
def test_every_fault_is_one_request_and_told_apart(
    sandbox: Sandbox, fault: str, result: str, status: int | None, is_outside: bool
) -> None:
    sandbox.faults.configure(retry_after_seconds=20)
    sandbox.faults.for_customer(CUSTOMER.id, fault)
    timeout = 0.5 if fault == "hang" else 20
    delivery = send(settings_of(sandbox.base_url, sandbox=sandbox, timeout_seconds=timeout))
    assert (delivery.result, delivery.http_status, delivery.is_outside_contract) == (result, status, is_outside)
    assert delivery.description
    assert len(deletes(sandbox)) == 1
    assert [request.path for request in sandbox.requests][1:] == [f"/v1/Customers/{CUSTOMER.id}"]
    assert sandbox.deletions.all() == []
    if fault == "throttle":
        assert delivery.retry_after_seconds == 20
    elif fault == "throttle_date":
        assert delivery.retry_after_seconds == pytest.approx(20, abs=5)
    else:
        assert delivery.retry_after_seconds is None


def test_what_the_api_refuses_is_told_in_its_words(sandbox: Sandbox) -> None:
    sandbox.blocks_active_deletions = True
    settings = settings_of(sandbox.base_url, sandbox=sandbox)
    blocked = send(settings)
    assert (blocked.result, blocked.http_status, blocked.is_outside_contract) == ("refused", 400, False)
    assert blocked.description == "HTTP 400, BadRequest: The customer has active subscriptions."
    assert blocked.server_correlation_id == deletes(sandbox)[0].correlation_id
    sandbox.blocks_active_deletions = False
    assert send(settings).result == "accepted"
    gone = send(settings)
    assert (gone.result, gone.http_status, gone.is_outside_contract) == ("refused", 404, False)
    by_reseller = send(settings_of(sandbox.base_url, sandbox=sandbox, client=RESELLER_CLIENT))
    assert (by_reseller.result, by_reseller.http_status) == ("refused", 403)
    assert len(deletes(sandbox)) == 4


@pytest.mark.parametrize(
    ("status", "body", "result", "is_outside"),
    [
        ("200 OK", b"", "unknown", True),
        ("200 OK", b'{"status":"ok"}', "unknown", True),
        ("204 No Content", b"", "unknown", True),
        ("202 Accepted", b"<html>later</html>", "accepted", False),
        ("202 Accepted", b'{"statusCode":500}', "accepted", False),
        ("301 Moved", b"", "unknown", True),
        ("307 Temporary Redirect", b"", "unknown", True),
        ("400 Bad Request", b"<html>no</html>", "refused", True),
        ("401 Unauthorized", b"", "unauthorized", False),
        ("403 Forbidden", b"<html>no</html>", "refused", False),
        ("404 Not Found", json.dumps(DOCUMENTED).encode(), "refused", False),
        ("404 Not Found", b"<html>no such page</html>", "refused", True),
        ("404 Not Found", b'{"statusCode": 404, "message": "Resource not found"}', "refused", True),
        ("409 Conflict", b"", "refused", False),
        ("418 I'm a teapot", b"", "unknown", True),
        ("500 Internal Server Error", b"", "unknown", False),
        ("502 Bad Gateway", b"<html>gateway</html>", "unknown", False),
    ],
)
def test_status_decides_whatever_the_body(status: str, body: bytes, result: str, is_outside: bool) -> None:
    location = "Location: http://127.0.0.1:9/elsewhere"
    with raw_server(head(location, f"Content-Length: {len(body)}", status=status), body) as server:
        delivery = send(settings_of(server.url))
    assert (delivery.result, delivery.is_outside_contract) == (result, is_outside)
    assert delivery.http_status == int(status[:3])
    assert len(server.received) == 1


def test_request_on_the_wire_is_one_delete_with_our_headers() -> None:
    correlation_id = str(uuid4())
    with raw_server(head("Content-Length: 0", status="202 Accepted")) as server:
        send(settings_of(server.url), REMOVAL, correlation_id)
    (request,) = server.received
    line, *lines = request.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    assert line == (
        f"DELETE /v1/Customers/{CUSTOMER.id}/remove-reseller-relationship/{REMOVAL.provider_instance_id} HTTP/1.1"
    )
    assert headers["Authorization"] == "Bearer ready-token"
    assert headers["X-Tenant"] == TENANT.domain
    assert headers["X-Correlation-Id"] == correlation_id


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b""], id="closed without a word"),
        pytest.param([b"SSH-2.0-OpenSSH_9\r\n"], id="garbage"),
        pytest.param([b"HTTP/1.1 abc\r\n\r\n"], id="no status"),
        pytest.param([b"HTTP/1.1 20"], id="within the status line"),
        pytest.param([head("Content-Length: 100"), b"{}"], id="within the body"),
    ],
)
def test_answer_that_breaks_off_is_unknown(pieces: list[bytes]) -> None:
    with raw_server(*pieces) as server:
        delivery = send(settings_of(server.url))
    assert (delivery.result, delivery.http_status, delivery.is_outside_contract) == ("unknown", None, False)
    assert len(server.received) == 1


def test_answer_that_trickles_in_is_unknown_at_the_timeout() -> None:
    with raw_server(head("Content-Length: 1000"), *[b" "] * 100, pause_seconds=0.05) as server:
        delivery = send(settings_of(server.url, timeout_seconds=0.5))
    assert (delivery.result, delivery.http_status) == ("unknown", None)
    assert "timeout" in delivery.description
    assert len(server.received) == 1


@pytest.mark.parametrize(("fault", "at_the_server"), [("reset", 1), ("truncated", 1), ("half_open", 0)])
def test_damage_on_the_way_is_unknown(sandbox: Sandbox, fault: str, at_the_server: int) -> None:
    """The API has carried it out, or has not: nobody can tell from here."""
    with fault_proxy(sandbox.base_url, **{fault: 1.0}) as proxy:
        delivery = send(settings_of(proxy.base_url, sandbox=sandbox, timeout_seconds=1))
    assert (delivery.result, delivery.http_status) == ("unknown", None)
    assert proxy.exchanges == 1
    assert len(deletes(sandbox)) == len(sandbox.deletions.all()) == at_the_server


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_nobody_listening_is_not_delivered() -> None:
    delivery = send(settings_of(f"http://127.0.0.1:{closed_port()}"))
    assert (delivery.result, delivery.http_status, delivery.is_outside_contract) == ("not_delivered", None, False)
    assert "Connection refused" in delivery.description


def test_name_that_does_not_resolve_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    assert send(settings_of("https://nowhere.invalid", timeout_seconds=10)).result == "not_delivered"


def test_connection_that_is_not_taken_in_time_is_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cockpit_source.transport.CONNECT_TIMEOUT_SECONDS", 0.3)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        delivery = send(settings_of(f"http://127.0.0.1:{port}"))
    assert (delivery.result, delivery.http_status) == ("not_delivered", None)


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_handshake_that_fails_is_not_delivered(monkeypatch: pytest.MonkeyPatch, answer: bytes | None) -> None:
    """The server says nothing, hangs up, or does not speak TLS."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("cockpit_source.transport.CONNECT_TIMEOUT_SECONDS", 0.5)
    received = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal received
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                received = connection.recv(65_536)
                if answer is None:
                    connection.recv(65_536)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        delivery = send(settings_of(f"https://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join(timeout=5)
    assert (delivery.result, delivery.http_status) == ("not_delivered", None)
    assert received
    assert b"DELETE" not in received


@pytest.mark.parametrize("proxy", ["refusing port", "refusing proxy", "socks5://127.0.0.1:1"])
def test_proxy_that_cannot_be_passed_is_not_delivered(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with raw_server(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as server:
        address = {"refusing port": f"http://127.0.0.1:{closed_port()}", "refusing proxy": server.url}.get(
            proxy, proxy
        )
        monkeypatch.setenv("HTTPS_PROXY", address)
        delivery = send(settings_of("https://api.example.com"))
    assert (delivery.result, delivery.http_status) == ("not_delivered", None)
    assert [received.split()[0] for received in server.received] == [b"CONNECT"] * (proxy == "refusing proxy")


def test_certificates_that_are_not_there_are_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ours.pem")
    delivery = send(settings_of("https://127.0.0.1:1"))
    assert delivery.result == "not_delivered"
    assert "/nowhere/ours.pem" in delivery.description


def test_every_request_has_its_own_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    connect = TCPConnector._create_connection

    async def note(self: TCPConnector, *arguments: Any) -> Any:
        opened.append(arguments)
        return await connect(self, *arguments)

    monkeypatch.setattr(TCPConnector, "_create_connection", note)
    with DeleteClient(settings_of(sandbox.base_url, sandbox=sandbox)) as client:
        client.prepare()
        assert len(opened) == 1
        for candidate in (REMOVAL, DELETION):
            assert client.send(candidate, str(uuid4())).result == "accepted"
    assert len(opened) == 3
    assert [request.method for request in sandbox.requests] == ["POST", "DELETE", "DELETE"]


def test_token_that_is_refused_is_renewed_only_when_told_to(sandbox: Sandbox) -> None:
    with DeleteClient(settings_of(sandbox.base_url, sandbox=sandbox)) as client:
        client.prepare()
        sandbox.tokens.revoke_all()
        client.prepare()
        assert client.send(DELETION, str(uuid4())).result == "unauthorized"
        assert [request.method for request in sandbox.requests] == ["POST", "DELETE"]
        client.renew()
        assert client.send(DELETION, str(uuid4())).result == "accepted"
    assert [request.method for request in sandbox.requests] == ["POST", "DELETE", "POST", "DELETE"]


def test_ready_token_cannot_be_renewed(sandbox: Sandbox) -> None:
    with DeleteClient(settings_of(sandbox.base_url)) as client:
        client.prepare()
        assert client.send(DELETION, str(uuid4())).result == "unauthorized"
        with pytest.raises(SignInRefused):
            client.renew()
    assert len(deletes(sandbox)) == 1


def test_sign_in_that_is_refused_is_told_before_anything_is_sent(sandbox: Sandbox) -> None:
    settings = settings_of(sandbox.base_url, sandbox=sandbox, client_secret="wrong")
    with DeleteClient(settings) as client, pytest.raises(SignInRefused):
        client.prepare()
    assert deletes(sandbox) == []


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate(DELETE_CUSTOMER, "../customers", None, ""),
        Candidate(DELETE_CUSTOMER, "", None, ""),
        Candidate(DELETE_CUSTOMER, CUSTOMER.id, CUSTOMER.provider_instance_ids[0], ""),
        Candidate(REMOVE_RELATIONSHIP, CUSTOMER.id, None, ""),
        Candidate(REMOVE_RELATIONSHIP, CUSTOMER.id, "", ""),
        Candidate("cancel", CUSTOMER.id, None, ""),  # type: ignore[arg-type]
    ],
)
def test_candidate_that_names_no_deletion_is_never_sent(sandbox: Sandbox, candidate: Candidate) -> None:
    with DeleteClient(settings_of(sandbox.base_url, sandbox=sandbox)) as client:
        client.prepare()
        with pytest.raises(ValueError, match="no deletion"):
            client.send(candidate, str(uuid4()))
    assert deletes(sandbox) == []


def test_nothing_is_sent_without_a_token_or_a_correlation_id(sandbox: Sandbox) -> None:
    with DeleteClient(settings_of(sandbox.base_url, sandbox=sandbox)) as client:
        with pytest.raises(RuntimeError, match="prepare"):
            client.send(DELETION, str(uuid4()))
        with pytest.raises(RuntimeError, match="prepare"):
            client.renew()
        client.prepare()
        with pytest.raises(ValueError, match="not a UUID"):
            client.send(DELETION, "plan 1")
    assert deletes(sandbox) == []
