"""What a probe means: one line for each thing that was checked, and what to do where it is wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .probe import Probe

__all__ = ["ProbeLevel", "ProbeVerdict", "judge", "worst"]

# Events that come within this time of each other came together: no two writes of a service that streams are so close.
_TOGETHER_SECONDS = 0.02
# A silence shorter than this may be the network, the scheduler, or a model that thinks.
_SILENCE_SECONDS = 0.25
_FEW_EVENTS = 5
# Proxies cut connections that are idle for longer (nginx: proxy_read_timeout 60 s).
_IDLE_SECONDS = 30.0


class ProbeLevel(StrEnum):
    """GOOD: as it should be. HINT: it works, and could be better. BAD: a client of event streams will suffer."""

    GOOD = "good"
    HINT = "hint"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """`subject` is what was looked at, one word; `remedy` is empty where nothing is to be done."""

    level: ProbeLevel
    subject: str
    finding: str
    remedy: str = ""


def worst(verdicts: list[ProbeVerdict]) -> ProbeLevel:
    """The worst level of all."""
    order = list(ProbeLevel)
    return max((verdict.level for verdict in verdicts), key=order.index, default=ProbeLevel.GOOD)


def judge(probe: Probe) -> list[ProbeVerdict]:
    """All verdicts, in the order in which a stream goes wrong: answer, headers, arrival, content, end."""
    if probe.status is None or not 200 <= probe.status < 300:
        return [_status(probe)]
    checks = (_status, _content_type, _length, _compression, _caching, _buffering, _heartbeat, _events, _end)
    return [verdict for check in checks if (verdict := check(probe)) is not None]


def _status(probe: Probe) -> ProbeVerdict:
    if probe.status is not None and 200 <= probe.status < 300:
        return ProbeVerdict(ProbeLevel.GOOD, "status", f"{probe.status}, HTTP/{probe.http_version}")
    remedy = "check path, method (--method), body (--body) and keys (--header)"
    return ProbeVerdict(ProbeLevel.BAD, "status", f"{probe.status}: no stream", remedy)


def _content_type(probe: Probe) -> ProbeVerdict:
    given = probe.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() == "text/event-stream":
        return ProbeVerdict(ProbeLevel.GOOD, "content-type", given)
    return ProbeVerdict(
        ProbeLevel.BAD,
        "content-type",
        f"{given or 'none'}: EventSource closes such a stream at once",
        "answer with Content-Type: text/event-stream; is the request a streaming one?",
    )


def _length(probe: Probe) -> ProbeVerdict | None:
    if "content-length" not in probe.headers:
        framing = probe.headers.get("transfer-encoding")
        return ProbeVerdict(
            ProbeLevel.GOOD, "framing", f"transfer-encoding: {framing}" if framing else "until the connection ends"
        )
    return ProbeVerdict(
        ProbeLevel.BAD,
        "framing",
        f"content-length: {probe.headers['content-length']}: the whole answer was known before it was sent",
        "stream the answer; something (a middleware, a cache, a proxy) has collected it first",
    )


def _compression(probe: Probe) -> ProbeVerdict:
    coding = probe.headers.get("content-encoding")
    if not coding or coding.lower() == "identity":
        return ProbeVerdict(ProbeLevel.GOOD, "compression", "none")
    return ProbeVerdict(
        ProbeLevel.HINT,
        "compression",
        f"content-encoding: {coding}: a compressor holds events back unless it is flushed after each",
        "leave text/event-stream out of compression (nginx: gzip_types), or flush after each event",
    )


def _caching(probe: Probe) -> ProbeVerdict:
    given = probe.headers.get("cache-control", "")
    directives = {part.strip().lower() for part in given.split(",")}
    if directives & {"no-cache", "no-store"}:
        return ProbeVerdict(ProbeLevel.GOOD, "cache-control", given)
    return ProbeVerdict(
        ProbeLevel.HINT,
        "cache-control",
        f"{given or 'none'}: a cache may keep a stream",
        "send Cache-Control: no-store",
    )


def _buffering(probe: Probe) -> ProbeVerdict:
    """Buffered: after a silence, events come together, and most of them came so."""
    bursts: list[tuple[float, float, int]] = []  # silence before it, its end, its events
    last = 0.0
    for arrival in probe.arrivals:
        if not arrival.events:
            continue
        if bursts and arrival.time - last <= _TOGETHER_SECONDS:
            silence, _, events = bursts[-1]
            bursts[-1] = (silence, arrival.time, events + arrival.events)
        else:
            bursts.append((arrival.time - last, arrival.time, arrival.events))
        last = arrival.time
    held = sum(events for silence, _, events in bursts if silence >= _SILENCE_SECONDS and events >= _FEW_EVENTS)
    via = _proxy(probe)
    if probe.events < _FEW_EVENTS:
        return ProbeVerdict(
            ProbeLevel.HINT, "buffering", f"{probe.events} events are too few to tell", "probe a longer stream"
        )
    if held * 2 > probe.events:
        silence, _, events = max(bursts, key=lambda burst: (burst[2], burst[0]))
        return ProbeVerdict(
            ProbeLevel.BAD,
            "buffering",
            f"looks buffered{via}: {events} events came together after {silence:.2f} s of silence",
            "nginx: proxy_buffering off, or let the service send X-Accel-Buffering: no; elsewhere: flush after each event",
        )
    if probe.headers.get("x-accel-buffering", "").strip().lower() == "no":
        return ProbeVerdict(ProbeLevel.GOOD, "buffering", "events come as they are sent; x-accel-buffering: no")
    remedy = "send X-Accel-Buffering: no, so that an nginx on the way does not hold events back"
    level = ProbeLevel.GOOD if "nginx" in probe.headers.get("server", "").lower() else ProbeLevel.HINT
    return ProbeVerdict(
        level, "buffering", f"events come as they are sent{via}", "" if level is ProbeLevel.GOOD else remedy
    )


def _proxy(probe: Probe) -> str:
    server, via = probe.headers.get("server", ""), probe.headers.get("via", "")
    named = via or server
    return f" (on the way: {named})" if named else ""


def _heartbeat(probe: Probe) -> ProbeVerdict | None:
    gaps = probe.gaps()
    longest = gaps.quantile(1.0) or 0.0
    if probe.comments:
        return ProbeVerdict(ProbeLevel.GOOD, "heartbeat", f"{probe.comments} comments")
    if longest < _IDLE_SECONDS and (probe.first_event_seconds or 0.0) < _IDLE_SECONDS:
        return None
    return ProbeVerdict(
        ProbeLevel.HINT,
        "heartbeat",
        f"{max(longest, probe.first_event_seconds or 0.0):.0f} s without a byte and no comments",
        "send a comment line (`:`) every 15 s, or proxies cut the connection",
    )


def _events(probe: Probe) -> ProbeVerdict:
    if not probe.events:
        return ProbeVerdict(
            ProbeLevel.BAD, "events", "none", "events end with a blank line; look at the body with curl -N"
        )
    resume = "with ids" if "id" in probe.fields else "without ids (no resume after a lost connection)"
    content = "all data is JSON" if not probe.not_json else f"the data of {probe.not_json} is no JSON"
    return ProbeVerdict(
        ProbeLevel.GOOD, "events", f"{probe.events}, {resume}; {content}{'; [DONE]' if probe.done_seen else ''}"
    )


def _end(probe: Probe) -> ProbeVerdict | None:
    if probe.ended in ("cut_off", "reset"):
        how = "without its last chunk" if probe.ended == "cut_off" else "by a reset"
        return ProbeVerdict(
            ProbeLevel.BAD, "end", f"the connection ended {how}", "look for the service's or a proxy's time-outs"
        )
    if probe.ended != "completed":
        return None
    keeps = probe.headers.get("connection", "").strip().lower() != "close" and probe.http_version == "1.1"
    framed = "content-length" in probe.headers or "transfer-encoding" in probe.headers
    if keeps and framed:
        return ProbeVerdict(ProbeLevel.GOOD, "end", "complete; the connection can be used again (keep-alive)")
    return ProbeVerdict(ProbeLevel.GOOD, "end", "complete; the connection is closed after it")
