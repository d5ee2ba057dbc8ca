"""Files fetched from an address: real servers on loopback that send, break off, trickle, redirect and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from raw_server import head, raw_server

from cockpit_source import download, reference_csv
from cockpit_source.download import fetch_file
from cockpit_source.errors import ConfigurationError, ListUnavailable

WHAT = "The SKU catalogue"


def body_of(content: bytes, status: str = "200 OK") -> bytes:
    return head(f"Content-Length: {len(content)}", "Connection: close", status=status) + content


def test_file_is_fetched_without_credentials(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter-two\n")
    with raw_server(body_of(b"a,b\n")) as server:
        assert fetch_file(f"{server.url}/names.csv?sig=secret", WHAT) == b"a,b\n"
    (request,) = server.received
    assert request.startswith(b"GET /names.csv?sig=secret ")
    assert b"authorization" not in request.lower()


def test_redirect_is_followed() -> None:
    with raw_server(body_of(b"a,b\n")) as target:
        moved = head(f"Location: {target.url}/b.csv", "Content-Length: 0", "Connection: close", status="302 Found")
        with raw_server(moved) as server:
            assert fetch_file(server.url, WHAT) == b"a,b\n"


@pytest.mark.parametrize("status", ["500 Failed", "503 Busy", "429 Too Many Requests"])
def test_server_that_fails_may_work_later(status: str) -> None:
    with raw_server(body_of(b"no", status)) as server, pytest.raises(ListUnavailable) as failed:
        fetch_file(f"{server.url}/names.csv?sig=secret", WHAT)
    assert str(failed.value) == (
        f"The SKU catalogue at {server.url}/names.csv cannot be fetched: the server answered {status[:3]}. Run again "
        "later, or download the file and give its path; nothing was changed."
    )


def test_refusal_is_a_matter_of_the_address() -> None:
    with raw_server(body_of(b"no", "404 Not Found")) as server, pytest.raises(ConfigurationError) as refused:
        fetch_file(f"{server.url}/?sig=secret", WHAT)
    assert "cannot be had: the server answered 404" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_answer_that_breaks_off_is_not_taken() -> None:
    broken = head("Content-Length: 1000", "Connection: close") + b"a,b\n"
    with raw_server(broken) as server, pytest.raises(ListUnavailable, match="cannot be fetched: "):
        fetch_file(server.url, WHAT)


def test_nobody_there() -> None:
    with raw_server() as server:
        pass
    with pytest.raises(ListUnavailable, match="Connection refused"):
        fetch_file(f"{server.url}/?sig=secret", WHAT)


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT_SECONDS", 0.3)
    hanging = raw_server(b"", body_of(b"late"), pause_seconds=20)
    with hanging as server, pytest.raises(ListUnavailable, match="no answer in time"):
        fetch_file(server.url, WHAT)


def test_trickle_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL_SECONDS", 0.3)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 1)
    pieces = [head("Content-Length: 1000", "Connection: close"), *[b"x"] * 200]
    trickling = raw_server(*pieces, pause_seconds=0.1)
    with trickling as server, pytest.raises(ListUnavailable, match=r"it was not complete after 0\.3 s"):
        fetch_file(server.url, WHAT)


def test_what_is_larger_than_any_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (download, reference_csv):
        monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 2**20)
    large = raw_server(body_of(b"x" * (2**20 + 1)))
    with large as server, pytest.raises(ConfigurationError, match="is larger than 1 MiB"):
        fetch_file(server.url, WHAT)


def test_redirect_to_plain_http_elsewhere_is_not_followed() -> None:
    location = "Location: http://files.invalid/b.csv?sig=secret"
    moved = head(location, "Content-Length: 0", "Connection: close", status="301 Moved")
    with raw_server(moved) as server, pytest.raises(ConfigurationError) as refused:
        fetch_file(server.url, WHAT)
    assert "leads to http://files.invalid/b.csv, which is not https" in str(refused.value)
