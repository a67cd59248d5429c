"""The openai client's headers, and that no relay pays for more of the client than that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from relay.upstream.client_headers import client_headers


def test_they_are_the_clients_with_organization_and_project_and_without_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-2")
    headers = dict(client_headers("http://127.0.0.1:9/v1", "sk-key"))
    agent = headers.pop(b"user-agent")
    assert agent.startswith(b"AsyncOpenAI/Python ")
    assert headers == {
        b"authorization": b"Bearer sk-key",
        b"openai-organization": b"org-1",
        b"openai-project": b"proj-2",
        b"accept-encoding": b"identity",
    }


def test_without_a_key_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert b"authorization" not in dict(client_headers("http://127.0.0.1:9/v1", None))


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True).stdout


def test_a_relay_loads_aiohttp_only_where_a_proxy_is_between() -> None:
    script = "import sys, relay.app; print('openai' in sys.modules, 'aiohttp' in sys.modules); "
    script += "import relay.upstream.proxied; print('aiohttp' in sys.modules)"
    assert run(script).split() == ["True", "False", "True"]


def test_who_has_imported_aiohttp_keeps_it_and_the_clients_transport_with_it() -> None:
    script = "import aiohttp, sys, relay.upstream.client_headers, openai; "
    script += "print(sys.modules['aiohttp'] is aiohttp, issubclass(openai.DefaultAioHttpClient, object), "
    script += "openai.DefaultAioHttpClient.__mro__[1].__name__)"
    assert run(script).split() == ["True", "True", "Httpx2AiohttpClient"]
