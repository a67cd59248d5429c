"""Whatever is written as a monitor's address, the answer is a sentence and an exit code."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
