"""Whatever is written as a monitor's address, the answer is a sentence and an exit code."""

from __future__ import annotations

import contextlib
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.commands import _asking
from diagnostics.commands._asking import asked, client_of
from diagnostics.errors import TargetError, UsageError


@pytest.mark.parametrize(
    "url", ["[", "http://[x", "http://x:99999", "x:y", "http://\x01", "ftp://x", "", "http://", "x:0"]
)
def test_what_is_no_address_is_the_users_fault(url: str) -> None:
    with pytest.raises(UsageError, match="is not a monitor's address"):
        client_of(url)


@pytest.mark.parametrize("url", ["http://a b", "http://xn--", "http://..:80"])
def test_a_host_that_there_cannot_be_does_not_answer(url: str) -> None:
    with pytest.raises((TargetError, UsageError)), client_of(url, timeout_seconds=20) as client:
        asked(client, "GET", "/debug/memory")


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    with contextlib.suppress(UsageError):
        client_of(url).close()


def test_threads_that_ask_at_the_same_time_read_the_certificates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `diagnostics fleet` does: reading them in each thread took longer than a hundred answers."""
    context, others = httpx2.create_ssl_context(trust_env=False), threading.Barrier(4)
    made: list[ssl.SSLContext] = []

    def make(trust_env: bool) -> ssl.SSLContext:
        made.append(context)
        with contextlib.suppress(threading.BrokenBarrierError):
            others.wait(0.5)  # nobody else comes: each that did would have read them, too
        return context

    _asking._made.cache_clear()
    monkeypatch.setattr(httpx2, "create_ssl_context", make)
    with ThreadPoolExecutor(4) as pool:
        for client in pool.map(client_of, ["http://127.0.0.1:6060"] * 4):
            client.close()
    assert len(made) == 1
