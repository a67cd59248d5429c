"""Access by keys, requests of foreign pages, and no key in any log or output."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import openai
import pytest

from relay.admission.keys import hash_of

Served = Any  # the fixtures are typed in conftest.py
Start = Any

FULL, MODELS = "full-" + "x" * 40, "models-" + "y" * 40
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def guarded(start_shared: Start) -> Served:
    return start_shared(
        "--diagnostics", "127.0.0.1:0", "--cors-origins", ORIGIN, "--log-level", "debug",
        RELAY_CLIENT_KEYS=f"app:generate+models:{hash_of(FULL.encode())},ci:models:{hash_of(MODELS.encode())}",
    )  # fmt: skip


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_the_official_client_asks_with_its_key(guarded: Served) -> None:
    with openai.OpenAI(base_url=guarded.url + "/v1", api_key=FULL, max_retries=0) as client:
        assert [model.id for model in client.models.list()]
        answer = client.chat.completions.create(model="sim:events=1", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content
    with openai.OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=guarded.url + "/v1", api_key=MODELS, max_retries=0) as client:
        assert [model.id for model in client.models.list()]
        with pytest.raises(openai.PermissionDeniedError, match="'ci' lacks the scope 'generate'"):
            client.responses.create(model="sim:", input="hi")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer(FULL + "x"),
        {"Authorization": FULL},
        {"Authorization": f"Basic {FULL}"},
        {"Api-Key": FULL},
    ],
)
@pytest.mark.parametrize("path", ["/stream?prompt=hi", "/v1/models", "/v1/nowhere", "/docs"])
def test_without_a_known_key_everything_else_is_closed(guarded: Served, path: str, headers: dict[str, str]) -> None:
    answer = guarded.get(path, **headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_get_stream_takes_the_key_by_its_header(guarded: Served) -> None:
    assert guarded.get("/stream?prompt=hi&model=sim:events=1,pace=0", **bearer(FULL)).events[-1] == "[DONE]"
    assert guarded.get(f"/stream?prompt=hi&key={FULL}").status == 401


def test_probes_and_the_page_are_open(guarded: Served) -> None:
    for path in ("/healthz", "/readyz", "/"):
        assert guarded.get(path).status == 200


def test_refusals_are_counted_and_no_key_is_logged(guarded: Served, eventually: Callable[..., None]) -> None:
    guarded.get("/v1/models")
    guarded.get("/stream?prompt=hi", **bearer(MODELS))
    url = guarded.lines[1].split()[1].removesuffix("/debug/memory") + "/metrics"

    def counted() -> bool:
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        assert "xxxx" not in text
        return 'stream_rejected_total{reason="key"' in text and 'stream_rejected_total{reason="scope"' in text

    eventually(counted)
    assert "xxxx" not in guarded.log()
    assert "yyyy" not in guarded.log()


def test_a_page_of_a_known_origin_may_ask(guarded: Served) -> None:
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "authorization,content-type"
    answer = guarded.ask("OPTIONS", "/v1/chat/completions", None, preflight)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "authorization" in answer.headers["access-control-allow-headers"]
    body = json.dumps({"model": "sim:events=1,pace=0", "messages": [], "stream": True}).encode()
    answer = guarded.ask("POST", "/v1/chat/completions", body, {"Origin": ORIGIN, **bearer(FULL)})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    # A refusal, too: else the page sees no status.
    assert guarded.get("/v1/models", Origin=ORIGIN).headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in guarded.get("/v1/models", Origin="https://other.example").headers


def test_by_default_no_other_page_may_ask(relay: Served) -> None:
    answer = relay.get("/v1/models", Origin=ORIGIN)
    assert (answer.status, answer.error["code"]) == (403, "foreign_page")
    assert not [name for name in answer.headers if name.startswith("access-control")]
