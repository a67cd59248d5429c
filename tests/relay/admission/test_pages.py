"""Requests of foreign web pages: which origins are let in, and which Host names the relay accepts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.admission.pages import Pages, host_name
from relay.errors import SettingsError
from relay.settings import load

ALLOWED = "https://app.example"


def ask(path: str, hosts: set[str] | None = frozenset(), **headers: str) -> tuple[int, str | None, list[str]]:  # type: ignore[assignment]
    """Status, error code, and the refusals that were counted."""
    refused: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "scheme": "http", "method": "GET", "headers": raw}
    asyncio.run(Pages(app, [ALLOWED], hosts, refused.append)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(sent[1]["body"]).get("error", {}).get("code"), refused


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8080"},
        {"host": "localhost:8080"},
        {"host": "[::1]:8080"},
        {"host": "10.0.0.7"},
        {"host": "relay.localhost"},
        {"host": "localhost:8080", "origin": "http://localhost:8080"},
        {"host": "localhost:8080", "origin": ALLOWED},
        {"host": "localhost:8080", "sec_fetch_site": "same-origin"},
        {"host": "localhost:8080", "sec_fetch_site": "none"},
    ],
)
def test_who_may_ask(headers: dict[str, str]) -> None:
    assert ask("/stream", **headers) == (200, None, [])


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ({"host": "localhost:8080", "origin": "http://evil.example"}, "foreign_page", "page"),
        ({"host": "localhost:8080", "origin": "null"}, "foreign_page", "page"),
        ({"host": "localhost:8080", "origin": "https://localhost:8080"}, "foreign_page", "page"),
        ({"host": "localhost:8080", "origin": "http://localhost:80801"}, "foreign_page", "page"),
        ({"host": "localhost:8080", "sec_fetch_site": "cross-site"}, "foreign_page", "page"),
        ({"host": "localhost:8080", "sec_fetch_site": "same-site"}, "foreign_page", "page"),
        ({"host": "evil.example:8080", "origin": "http://evil.example:8080"}, "unknown_host", "host"),
        ({"host": "127.0.0.1.evil.example"}, "unknown_host", "host"),
        ({"host": "["}, "unknown_host", "host"),
        ({"host": "localhost:8080@evil.example"}, "unknown_host", "host"),
        ({}, "unknown_host", "host"),
    ],
)
def test_who_may_not(headers: dict[str, str], code: str, reason: str) -> None:
    assert ask("/v1/chat/completions", **headers) == (403, code, [reason])


def test_a_name_that_was_given_to_the_relay_is_one() -> None:
    assert ask("/stream", {"relay.example"}, host="Relay.Example:8080")[0] == 200
    assert ask("/stream", {"relay.example"}, host="relay.example.evil")[0] == 403


def test_with_client_keys_every_name_will_do_and_no_page() -> None:
    assert ask("/stream", None, host="whatever")[0] == 200
    assert ask("/stream", None, host="whatever", origin="http://evil.example")[0] == 403


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_what_is_open_to_everybody_stays_so(path: str) -> None:
    assert ask(path, host="evil.example", origin="http://evil.example", sec_fetch_site="cross-site")[0] == 200


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_any_host_header_has_a_name_or_none(host: str) -> None:
    name = host_name(host)
    assert name is None or name in host.lower()


def test_a_relay_that_everybody_reaches_does_not_spend_its_key_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_UPSTREAM_API_KEY", "a-secret")
    url = "http://127.0.0.1:1/v1"
    with pytest.raises(SettingsError, match="RELAY_ALLOW_ANYONE") as raised:
        load(host="0.0.0.0", upstream_base_url=url)
    assert "a-secret" not in str(raised.value)
    assert load(host="127.0.0.1", upstream_base_url=url).host == "127.0.0.1"
    assert load(host="0.0.0.0", upstream_base_url=url, allow_anyone=True).allow_anyone
    monkeypatch.setenv("RELAY_CLIENT_KEYS", "ci:models:" + 64 * "0")
    assert load(host="0.0.0.0", upstream_base_url=url).keys
