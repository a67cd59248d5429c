"""A client that is cut off in the middle of a stream and comes back for the rest."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from relay.protocol.sse import Event, EventDecoder

__all__ = ["ASKING", "LARGE", "LARGE_EVENTS", "Part", "Resumer", "part", "whole"]

CHAT, COMPLETIONS, RESPONSES, STREAM = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/stream"
ASKING = (CHAT, COMPLETIONS, RESPONSES, STREAM)
# A model of the simulator whose events are written in several pieces each, and which falls silent after some of them.
LARGE_EVENTS = 4
LARGE = f"sim:events=9,pace=5,size=100000,first=0.5,fault=stall@{LARGE_EVENTS}"


@dataclass
class Part:
    """What one connection brought: `raw` is the body, as far as it was read."""

    status: int
    headers: Mapping[str, str]
    raw: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.raw)["error"])

    @property
    def events(self) -> list[Event]:
        return EventDecoder().feed(self.raw)


@contextlib.contextmanager
def part(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    receives: int = 0,
) -> Iterator[tuple[Part, http.client.HTTPResponse]]:
    """Ask, and hand over the response with none of its body read. `receives`: bytes of the kernel's buffer; 0: its choice."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    with contextlib.closing(connection):
        if receives:
            connection.sock = socket.socket()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
            connection.sock.connect((parts.hostname, parts.port))
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", **(headers or {})},
        )
        response = connection.getresponse()
        with response:
            yield Part(response.status, response.headers), response


def whole(url: str, path: str, method: str = "GET", body: Any = None, **headers: str) -> Part:
    """Ask, and read to the end."""
    with part(url, method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}) as (
        got,
        response,
    ):
        got.raw = response.read()
        return got


@dataclass
class Resumer:
    """One stream over several connections. `events` have come, each counted where it was dispatched."""

    route: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    stream: str = ""

    def read(self, url: str, most: int | None, by: str = "header") -> bool:
        """Connect, where there were events after the last of them, and read `most` bytes of the body (None: all).

        by   how the client says where it is: `header` (Last-Event-ID, to the route), `number` (GET /v1/streams/{id})
             or `response` (GET /v1/responses/{id})
        Returns whether the body ended.
        """
        with part(url, *self._request(by)) as (got, response):
            self.statuses.append(got.status)
            self.stream = got.headers.get("x-relay-stream", self.stream)
            if got.status != 200:
                return True
            decoder = EventDecoder()
            while most is None or len(got.raw) < most:
                chunk = response.read1(65536 if most is None else most - len(got.raw))
                if not chunk:
                    return True
                got.raw += chunk
                self.events += decoder.feed(chunk)
            return False

    @property
    def last_event_id(self) -> str:
        return self.events[-1].id if self.events else f"{self.stream}:0" if self.stream else ""

    @property
    def numbers(self) -> list[int]:
        return [int(event.id.rpartition(":")[2]) for event in self.events]

    def _request(self, by: str) -> tuple[str, str, Any, dict[str, str]]:
        last, headers = self.last_event_id, dict(self.headers)
        if last and by == "number":
            return "GET", f"/v1/streams/{self.stream}?starting_after={last.rpartition(':')[2]}", None, headers
        if self.events and by == "response":
            data = [json.loads(event.data) for event in self.events]
            name, number = data[0]["response"]["id"], data[-1]["sequence_number"]
            return "GET", f"/v1/responses/{name}?stream=true&starting_after={number}", None, headers
        if last:
            headers["Last-Event-ID"] = last
        if self.route == STREAM:
            return "GET", f"{STREAM}?prompt=hi&model={quote(self.model)}", None, headers
        return "POST", self.route, self._body(), headers

    def _body(self) -> dict[str, Any]:
        asked = {
            CHAT: {"messages": [{"role": "user", "content": "hi"}]},
            COMPLETIONS: {"prompt": "hi"},
            RESPONSES: {"input": "hi"},
        }
        return {"model": self.model, "stream": True, **asked[self.route]}
