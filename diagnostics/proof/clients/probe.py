"""One stream, looked at closely: how long each step takes, and what is on the way that holds events back.

    name    looking the host's name up          first byte    from the request to the answer's first byte
    connect TCP's handshake                     first event   from the request to the first whole event
    tls     its handshake                       gaps          between arrivals of events

`probe` measures, `judge` says what it means: a line for each finding, with what to do about it.

A proxy that buffers shows in how events arrive: nothing for a while, then many at once, where an unbuffered stream comes
one by one. A service that itself sends many events at once after thinking looks the same, so the verdict says "looks" and
names the silence and the burst that it saw.
"""

from __future__ import annotations

import socket
import time
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import httptools

from ...analysis.distribution import Distribution
from ...errors import TargetError, TargetSilentError
from .address import Address, RequestMessage
from .eventscan import EventScan

__all__ = ["Arrival", "Probe", "probe"]

_READ_BYTES = 64 * 1024
# gzip, zlib; RFC 9110, 8.4.1. 32: zlib finds out which of the two it is.
_ZLIB_CODINGS = {"gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS | 32}


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes that came in one read, `time` seconds after the request was sent, and the events that ended in them."""

    time: float
    bytes: int
    events: int


@dataclass
class Probe:
    """What was measured; seconds. None: it did not come to that.

    headers      names in lower case; of several with one name the values are joined by a comma (RFC 9110, 5.3)
    arrivals     reads that brought bytes of the body
    comments     lines that begin with a colon: what servers send to keep a connection alive
    fields       names of the fields that were seen: data, event, id, retry
    ended        how it ended: completed, cut_off, reset, enough (as many events as were asked for), time_up
    """

    address: Address
    name_seconds: float | None = None
    connect_seconds: float | None = None
    tls_seconds: float | None = None
    tls_version: str | None = None
    peer: str | None = None
    status: int | None = None
    http_version: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    first_byte_seconds: float | None = None
    first_event_seconds: float | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    events: int = 0
    comments: int = 0
    fields: tuple[str, ...] = ()
    done_seen: bool = False
    not_json: int = 0
    seconds: float = 0.0
    ended: str = "time_up"

    def gaps(self) -> Distribution:
        """Between arrivals of events; those that came in one read are 0 apart."""
        spread, last = Distribution(), None
        for arrival in self.arrivals:
            if not arrival.events:
                continue
            if last is not None:
                spread.add(arrival.time - last)
            spread.add(0.0, arrival.events - 1)
            last = arrival.time
        return spread

    def to_json(self) -> dict[str, Any]:
        """The measurement. Cookies are left out: they may be keys."""
        headers = {name: value for name, value in self.headers.items() if name != "set-cookie"}
        gaps = self.gaps()
        return {
            **asdict(self),
            "address": str(self.address),
            "headers": headers,
            "gaps": {
                "count": gaps.count,
                **{label: gaps.quantile(share) for label, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
                "max": gaps.quantile(1.0),
            },
        }


def probe(address: Address, message: RequestMessage, *, seconds: float, events: int, verify_tls: bool = True) -> Probe:
    """Open one stream and watch it until it ends, `events` have come, or `seconds` are over.

    Raises TargetError where no connection comes about, TargetSilentError where it is not answered in time.
    """
    probed = Probe(address)
    began = time.monotonic()
    deadline = began + seconds
    with _connected(probed, seconds, verify_tls) as connection:
        # As browsers ask: a proxy that compresses event streams shows itself only to who lets it.
        request = message.encode(address, accept_encoding="gzip, deflate", connection="keep-alive")
        sent = time.monotonic()
        connection.sendall(request)
        _watch(probed, connection, sent, deadline, events)
    probed.seconds = time.monotonic() - began
    return probed


def _connected(probed: Probe, seconds: float, verify_tls: bool) -> socket.socket:
    address = probed.address
    start = time.monotonic()
    places = address.resolve()
    probed.name_seconds = time.monotonic() - start
    connection = _first_that_answers(probed, places, seconds)
    context = address.tls_context(verify=verify_tls)
    if context is None:
        return connection
    start = time.monotonic()
    try:
        wrapped = context.wrap_socket(connection, server_hostname=address.host)
    except OSError as error:
        connection.close()
        raise TargetError(
            f"no TLS with {address.authority}: {error}", remedy="check the certificate, or use --insecure", code="tls"
        ) from error
    probed.tls_seconds, probed.tls_version = time.monotonic() - start, wrapped.version()
    return wrapped


def _first_that_answers(probed: Probe, places: list[Any], seconds: float) -> socket.socket:
    failure: OSError | None = None
    for family, kind, protocol, _, place in places:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(seconds)
        start = time.monotonic()
        try:
            connection.connect(place)
        except OSError as error:
            connection.close()
            failure = error
            continue
        probed.connect_seconds, probed.peer = time.monotonic() - start, str(place[0])
        return connection
    raise TargetError(
        f"nothing accepts connections at {probed.address.authority}: {failure}", remedy="is the service running?"
    ) from failure


def _watch(probed: Probe, connection: socket.socket, sent: float, deadline: float, events: int) -> None:
    answer = _Answer(probed)
    parser = httptools.HttpResponseParser(answer)
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            data = connection.recv(_READ_BYTES)
        except TimeoutError:
            break
        except OSError:
            probed.ended = "reset"
            return
        now = time.monotonic() - sent
        if not data:
            probed.ended = "completed" if answer.begun and not answer.framed else "cut_off"
            return
        if probed.first_byte_seconds is None:
            probed.first_byte_seconds = now
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, zlib.error) as error:
            raise TargetError(
                f"{probed.address} does not answer with valid HTTP: {error!r}", code="malformed"
            ) from error
        probed.status, probed.http_version = parser.get_status_code(), parser.get_http_version()
        answer.arrived(now)
        if answer.complete:
            probed.ended = "completed"
            return
        if probed.events >= events:
            probed.ended = "enough"
            return
    if probed.first_byte_seconds is None:
        raise TargetSilentError(
            f"{probed.address} accepted the request and sent nothing in {time.monotonic() - sent:.1f} s",
            remedy="ask for longer with --seconds, or look at the service with `diagnostics status`",
        )


class _Answer:
    """What httptools calls."""

    def __init__(self, probed: Probe) -> None:
        self._probed = probed
        self._scan = EventScan()
        self._bytes = 0
        self._inflate: Any = None
        self.begun = self.complete = self.framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._probed.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if key in ("content-length", "transfer-encoding"):
            self.framed = True

    def on_headers_complete(self) -> None:
        self.begun = True
        window = _ZLIB_CODINGS.get(self._probed.headers.get("content-encoding", "").strip().lower())
        self._inflate = zlib.decompressobj(window) if window else None

    def on_body(self, body: bytes) -> None:
        self._bytes += len(body)
        self._scan.feed(self._inflate.decompress(body) if self._inflate else body)

    def on_message_complete(self) -> None:
        self.complete = True

    def arrived(self, now: float) -> None:
        """Put what the last read brought into the probe."""
        probed, scan = self._probed, self._scan
        new = scan.events - probed.events
        if self._bytes:
            probed.arrivals.append(Arrival(now, self._bytes, new))
        if new and probed.first_event_seconds is None:
            probed.first_event_seconds = now
        self._bytes = 0
        probed.events, probed.comments, probed.fields = scan.events, scan.comments, tuple(sorted(scan.fields))
        probed.done_seen, probed.not_json = scan.done, scan.not_json
