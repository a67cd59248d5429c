"""The body of a webhook in each of its shapes, and its signature. Pure.

| shape | as |
|---|---|
| plain | the facts, `"schema": "highwater.rule/1"` |
| slack | an incoming webhook of Slack's: `text`, with &, < and > escaped as Slack asks |
| alertmanager | what Alertmanager posts to its webhook receivers, version 4 |
| alerts | what Prometheus posts to Alertmanager itself, POST /api/v2/alerts |

Sources: https://docs.slack.dev/messaging/formatting-message-text, https://prometheus.io/docs/alerting/latest/configuration/#webhook_config,
the OpenAPI of Alertmanager's version 2.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["SIGNATURE", "Facts", "body", "signature", "verified"]

SIGNATURE: Final = "X-Highwater-Signature"
_ALERT: Final = "HighwaterRule"
# What a receiver may be asked to take of a text of ours.
_MAX_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class Facts:
    """A firing, for people and programs elsewhere.

    delivery   the same for all attempts at one delivery, so that a receiver can tell them from another firing
    time       seconds since the epoch
    host, service   of this machine, and what the worker's process runs (its first words)
    verdict    what was last said of the worker, "" where nothing was
    capture    the id of the capture that the rule has begun; `capture_refused` why it has not
    """

    delivery: str
    rule: str
    says: str
    trigger: str
    value: float
    bound: float
    worker: str
    pid: int
    time: float
    host: str
    verdict: str = ""
    capture: str | None = None
    capture_refused: str | None = None

    @property
    def at(self) -> str:
        return datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def to_json(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in self.__slots__}
        return {"schema": "highwater.rule/1", **told, "time": self.at}

    @property
    def text(self) -> str:
        said = f"Rule {self.rule} fired on {self.host}, worker {self.worker}: {self.says}."
        if self.verdict:
            said += f" Verdict: {self.verdict}"
        if self.capture:
            said += f" Capture: {self.capture}"
        if self.capture_refused:
            said += f" No capture: {self.capture_refused}"
        return said[:_MAX_TEXT]


def body(facts: Facts, shape: str) -> bytes:
    """The JSON to post. `shape`: one of the table at the top of this file."""
    return json.dumps(_SHAPES[shape](facts), separators=(",", ":")).encode()


def signature(key: bytes, now: int, sent: bytes) -> str:
    """The header's value: `t=NOW,v1=HEX`, the HMAC-SHA256 of `NOW.BODY` with `key`; `now` in seconds since the epoch."""
    return f"t={now},v1={hmac.new(key, f'{now}.'.encode() + sent, hashlib.sha256).hexdigest()}"


def verified(key: bytes, header: str, received: bytes, now: float, tolerance_seconds: float = 300.0) -> bool:
    """Whether a header of `signature` is of this body, and not older than the tolerance: what a receiver does."""
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    at = parts.get("t", "")
    if not at.isascii() or not at.isdecimal() or len(at) > 15 or abs(now - int(at)) > tolerance_seconds:
        return False
    return hmac.compare_digest(signature(key, int(at), received).encode(), header.encode())


def _slack(facts: Facts) -> Mapping[str, Any]:
    text = facts.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text}


def _alert(facts: Facts) -> dict[str, Any]:
    return {
        "labels": {"alertname": _ALERT, "rule": facts.rule, "worker": facts.worker, "host": facts.host},
        "annotations": {"summary": facts.text, "value": f"{facts.value:g}", "bound": f"{facts.bound:g}"},
        "startsAt": facts.at,
    }


def _alertmanager(facts: Facts) -> Mapping[str, Any]:
    alert = _alert(facts)
    # The zero time of Go: it has not ended.
    firing = {
        **alert, "status": "firing", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": facts.delivery[:16]
    }  # fmt: skip
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{_ALERT}"}}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "highwater",
        "groupLabels": {"alertname": _ALERT},
        "commonLabels": alert["labels"],
        "commonAnnotations": alert["annotations"],
        "externalURL": "",
        "alerts": [firing],
    }


_SHAPES: Final[dict[str, Callable[[Facts], Any]]] = {
    "plain": Facts.to_json,
    "slack": _slack,
    "alertmanager": _alertmanager,
    "alerts": lambda facts: [_alert(facts)],
}
