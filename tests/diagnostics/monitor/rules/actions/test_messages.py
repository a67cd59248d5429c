"""Bodies of webhooks in their shapes, and a signature that only the key's holder can make."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.rules.actions.messages import Facts, body, signature, verified

FACTS = Facts(
    delivery="0123456789abcdef0123456789abcdef", rule="ratio", says="rss_bytes > 5 for 1 s: 7", trigger="when", value=7.0,
    bound=5.0, worker="0", pid=17, time=1_800_000_000.25, host="pod-1", verdict="Load <only> & nothing", capture="20261128T1",
)  # fmt: skip


def test_the_plain_one_has_every_fact() -> None:
    assert json.loads(body(FACTS, "plain")) == {
        "schema": "highwater.rule/1", "delivery": "0123456789abcdef0123456789abcdef", "rule": "ratio",
        "says": "rss_bytes > 5 for 1 s: 7", "trigger": "when", "value": 7.0, "bound": 5.0, "worker": "0", "pid": 17,
        "time": "2027-01-15T08:00:00.250Z", "host": "pod-1", "verdict": "Load <only> & nothing", "capture": "20261128T1",
        "capture_refused": None,
    }  # fmt: skip


def test_slacks_has_text_without_markup_of_others() -> None:
    told = json.loads(body(FACTS, "slack"))
    assert set(told) == {"text"}
    assert told["text"] == (
        "Rule ratio fired on pod-1, worker 0: rss_bytes &gt; 5 for 1 s: 7. Verdict: Load &lt;only&gt; &amp; nothing"
        " Capture: 20261128T1"
    )


def test_alertmanagers_is_a_group_with_one_alert() -> None:
    told = json.loads(body(FACTS, "alertmanager"))
    (alert,) = told["alerts"]
    assert (told["version"], told["status"], alert["status"]) == ("4", "firing", "firing")
    assert alert["labels"] == told["commonLabels"]
    assert alert["labels"] == {"alertname": "HighwaterRule", "rule": "ratio", "worker": "0", "host": "pod-1"}
    assert (alert["startsAt"], alert["annotations"]["value"]) == ("2027-01-15T08:00:00.250Z", "7")


def test_a_signature_is_an_hmac_of_time_and_body() -> None:
    """As a receiver in any language makes it."""
    sent = body(FACTS, "plain")
    expected = hmac.new(b"key", b"1800000000." + sent, hashlib.sha256).hexdigest()
    assert signature(b"key", 1_800_000_000, sent) == f"t=1800000000,v1={expected}"


@given(key=st.binary(min_size=1), sent=st.binary(), now=st.integers(0, 2**40), late=st.integers(-600, 600))
def test_what_is_signed_is_verified_for_five_minutes(key: bytes, sent: bytes, now: int, late: int) -> None:
    header = signature(key, now, sent)
    assert verified(key, header, sent, now + late) == (abs(late) <= 300)
    assert not verified(key + b"x", header, sent, now)
    assert not verified(key, header, sent + b"x", now)


@given(st.text(max_size=80))
def test_any_other_header_is_not_verified(header: str) -> None:
    assert not verified(b"key", header, b"{}", 1_800_000_000)


@pytest.mark.parametrize("header", ["t=1,v1=", "t=²,v1=0", "t=-5", "v1=00", "t=1800000000,v1=" + 64 * "0", "t=,t=1"])
def test_nor_is_one_that_looks_like_it(header: str) -> None:
    assert not verified(b"key", header, b"{}", 1_800_000_000)
