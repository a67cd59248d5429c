"""A client that is cut off after so many bytes, again and again, and comes back through nginx to whichever replica it meets."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from relay.protocol.sse import Event, EventDecoder
from relay.simulator.events import text_of
from relay.simulator.grammar import parse

from .cluster import MOMENT, REPLICA

__all__ = ["Client", "Wanted", "Wrong"]

CHAT, COMPLETIONS, RESPONSES, STREAM = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/stream"
ROUTES = (CHAT, COMPLETIONS, RESPONSES, STREAM)
# How a client says where it is: Last-Event-ID to its route, GET /v1/streams/{id}, or OpenAI's GET /v1/responses/{id}.
WAYS = ("header", "number", "response")
PATIENCE_SECONDS = 240.0
# Of the streams, those with large events, and the most text that one has: a response repeats it four times at its end.
LARGE_SHARE = 0.15
LARGE_BYTES = 150_000
# What may be answered for a while, and is asked again: nobody there (nginx), a Redis that is away, a relay that drains.
AGAIN = (502, 503, 504)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class Wrong(Exception):
    """What a client saw and may not."""


@dataclass(frozen=True)
class Wanted:
    """One stream: what is asked for, after how many seconds, and where it is cut off.

    cuts     for each connection but the last, the bytes of the body after which it is cut off
    rests    seconds before the client comes back, for each cut
    resets   whether it is cut off by RST, for each cut; else by FIN
    """

    route: str
    way: str
    events: int
    pace: int
    size: int
    seed: int
    begins: float
    cuts: tuple[int, ...]
    rests: tuple[float, ...]
    resets: tuple[bool, ...]

    @staticmethod
    def of(chance: random.Random) -> Wanted:
        route = chance.choice(ROUTES)
        way = chance.choice(WAYS if route == RESPONSES else WAYS[:2])
        events, size, pace = chance.randrange(40, 120), chance.randrange(8, 60), chance.randrange(12, 25)
        if chance.random() < LARGE_SHARE:
            # As whole files in one event: more than a write takes, more than may wait for a client at another relay.
            events = chance.randrange(3, 30)
            size, pace = chance.randrange(LARGE_BYTES // 10, LARGE_BYTES) // events, max(events // 5, 1)
        part = events * (size + 250) // 3
        return Wanted(
            route=route,
            way=way,
            events=events,
            pace=pace,
            size=size,
            seed=chance.randrange(1000),
            begins=chance.uniform(0, 3),
            cuts=tuple(chance.randrange(1, part) for _ in range(3)),
            rests=tuple(chance.choice((0.0, chance.uniform(0, 1.5))) for _ in range(3)),
            resets=tuple(chance.random() < 0.5 for _ in range(3)),
        )

    @property
    def model(self) -> str:
        return f"sim:events={self.events},pace={self.pace},size={self.size},first=0,seed={self.seed}"


@dataclass
class Client:
    """One stream over all of its connections.

    owner    the relay that the stream came through, HOST:PORT, and `owned_at`, when nginx got its head, in seconds since 1970
    outcome  `whole`, or the code of the error that the stream ended with
    story    each connection in a few words
    """

    wanted: Wanted
    port: int
    events: list[Event] = field(default_factory=list)
    stream: str = ""
    owner: str = ""
    owned_at: float = 0.0
    outcome: str = ""
    story: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Until the stream is over. Raises Wrong."""
        await asyncio.sleep(self.wanted.begins)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for cut, rest, reset in zip(self.wanted.cuts, self.wanted.rests, self.wanted.resets, strict=True):
                    await self._until_cut(cut, reset=reset)
                    if self.outcome:
                        return self._check()
                    await asyncio.sleep(rest)
                await self._until_cut(None, reset=False)
        except TimeoutError:
            raise Wrong(f"the stream did not end within {PATIENCE_SECONDS:g} s") from None
        return self._check()

    async def _until_cut(self, most: int | None, *, reset: bool) -> None:
        """Connect, as often as need be, until `most` bytes of a body have come, or the stream is over."""
        while not self.outcome:
            try:
                if await self._connect(most, reset=reset):
                    return
            except (OSError, asyncio.IncompleteReadError, EOFError) as error:
                self.story.append(f"lost ({type(error).__name__})")
            await asyncio.sleep(0.2)

    async def _connect(self, most: int | None, *, reset: bool) -> bool:
        """One connection. Returns whether it was cut off here; raises where it was lost, False where it is to be made again."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self._request())
            status, headers = await _head(reader)
            answered = headers.get(REPLICA, "").rpartition(",")[2].strip()
            self.story.append(f"{status} of {answered} after {self._number}")
            if status != 200:
                return self._refused(status, await _body(reader, headers))
            if not self.stream:
                self.stream, self.owner, self.owned_at = headers["x-relay-stream"], answered, float(headers[MOMENT])
            return await self._read(reader, most)
        finally:
            if reset:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort() if reset else writer.close()

    async def _read(self, reader: asyncio.StreamReader, most: int | None) -> bool:
        decoder, read = EventDecoder(), 0
        while most is None or read < most:
            size = int(await reader.readuntil(b"\r\n"), 16)
            if size == 0:
                self.outcome = self._ending()
                return True
            # A client may be cut off within an event, and within a chunk.
            part = await reader.readexactly(min(size, most - read) if most is not None else size)
            read += len(part)
            for event in decoder.feed(part):
                self._take(event)
            if len(part) == size:
                await reader.readexactly(2)
        return True

    def _take(self, event: Event) -> None:
        stream, _, number = event.id.rpartition(":")
        if not event.id and event.data.startswith('{"error"'):
            self.events.append(event)  # of this connection alone, and its last
        elif stream != self.stream or int(number) != self._number + 1:
            raise Wrong(f"after event {self._number} of {self.stream} came {event.id!r}: {event.data[:300]}")
        else:
            self.events.append(event)

    def _ending(self) -> str:
        """How a body that has ended properly has ended."""
        if not self.events:
            raise Wrong("a stream without an event")
        last = self.events[-1]
        if last.data == "[DONE]" or last.event == "response.completed":
            return "whole"
        error = json.loads(last.data).get("error")
        if not error:
            raise Wrong(f"the body ended after {last.data[:200]}")
        return str(error["code"])

    def _refused(self, status: int, body: bytes) -> bool:
        if status == 204:
            self.outcome = self._ending()
            return True
        code = json.loads(body)["error"]["code"] if body.startswith(b"{") else "nginx"
        self.story[-1] += f" {code}"
        if code in ("stream_broken", "stream_not_found"):
            self.outcome = code
            return True
        if status not in AGAIN:
            raise Wrong(f"{status} {code}")
        return False

    def _check(self) -> None:
        """Every event of a whole answer is the upstream's, of one answer."""
        data = [json.loads(event.data) for event in self.events if event.data != "[DONE]"]
        data = [one for one in data if "error" not in one or "id" in one]
        text = "".join(map(_text, data)).encode()
        expected = text_of(parse(self.wanted.model))
        if text != (expected if self.outcome == "whole" else expected[: len(text)]):
            raise Wrong(f"the text is not the upstream's, after {len(text)} of {len(expected)} bytes")
        ids = {
            one["response"]["id"] if "response" in one else one["id"]
            for one in data
            if "response" in one or "id" in one
        }
        if len(ids) > 1:
            raise Wrong(f"events of {len(ids)} answers")

    @property
    def _number(self) -> int:
        return len(self.events)

    def _request(self) -> bytes:
        wanted = self.wanted
        head = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if self.stream and wanted.way == "number":
            return _message("GET", f"/v1/streams/{self.stream}?starting_after={self._number}", head)
        if self.events and wanted.way == "response":
            first, last = json.loads(self.events[0].data), json.loads(self.events[-1].data)
            if "sequence_number" in last:
                path = f"/v1/responses/{first['response']['id']}?stream=true&starting_after={last['sequence_number']}"
                return _message("GET", path, head)
        if self.stream:
            head["Last-Event-ID"] = f"{self.stream}:{self._number}"
        if wanted.route == STREAM:
            return _message("GET", f"{STREAM}?prompt=hi&model={quote(wanted.model)}", head)
        asked: dict[str, dict[str, Any]] = {
            CHAT: {"messages": [{"role": "user", "content": "hi"}]},
            COMPLETIONS: {"prompt": "hi"},
            RESPONSES: {"input": "hi"},
        }
        body = json.dumps({"model": wanted.model, "stream": True, **asked[wanted.route]}).encode()
        return _message("POST", wanted.route, head, body)


def _text(data: dict[str, Any]) -> str:
    """The text that an event of any of the APIs adds."""
    if data.get("type") == "response.output_text.delta":
        return str(data["delta"])
    choices = data.get("choices") or [{}]
    return str(choices[0].get("text") or (choices[0].get("delta") or {}).get("content") or "")


def _message(method: str, path: str, head: dict[str, str], body: bytes = b"") -> bytes:
    if body:
        head = {**head, "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = text.split("\r\n")[:-2]
    fields = (line.partition(":") for line in rest)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The body of a refusal."""
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    body = b""
    while headers.get("transfer-encoding") == "chunked" and (size := int(await reader.readuntil(b"\r\n"), 16)):
        body += (await reader.readexactly(size + 2))[:-2]
    return body
