"""The logs of streams in Redis: their keys, and the commands on them. Knows nothing of clients.

| key, after the prefix | type | what |
|---|---|---|
| `resume:stream:ID` | stream | the events, several an entry, whose id is the number of the last one; one entry for the end |
| `resume:about:ID` | hash | the stream's relay, caller, oldest and newest event, and how it ended; outlives the events |
| `resume:response:CALLER:ID` | string | the stream of an upstream's response, and the difference of its numbers |
| `resume:relay:TOKEN` | string | there while this relay lives: its last beat, and the last one that is copied (`beat`) |
| `resume:wanted:ID` | string | there while a client follows the stream at another relay than its own |
| `resume:wake:TOKEN` | stream | wakes this relay's blocking reader, when it is to read other streams |

The scripts append.lua and break.lua are the only writers of the first two. Every key expires.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError
from redis.typing import EncodableT

from ..errors import StreamBrokenError
from ..protocol.sse import encode
from ..redis_client import Line, client
from .copies import BETWEEN, Copied
from .logs import Named
from .options import SharedThrough

__all__ = [
    "BEAT_SECONDS",
    "LEASE_SECONDS",
    "READ_ENTRIES",
    "About",
    "Beaten",
    "CopiedSince",
    "Entry",
    "Heard",
    "RedisLog",
]

# A relay says this often that it lives, and counts as gone when it has not for the lease: ten missed beats.
BEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 10.0
# A relay whose lease was missing at the first look has so long to say that it lives: Redis may have lost the lease.
UNKNOWN_SECONDS: Final = 5.0
# The longest that the reader blocks; it reads again then.
BLOCK_SECONDS: Final = 5.0
# Streams that one call of append.lua is for: Redis does nothing else meanwhile.
CALL_STREAMS: Final = 64
# The most entries of one stream in one answer of the reader; each may have copies.STREAM_BYTES.
READ_ENTRIES: Final = 32
COMMAND_CONNECTIONS: Final = 4
# What is known about a stream is kept so many times as long as its events: whoever comes then is told that it is too late.
REMEMBERED: Final = 2

# Sends commands together, and returns their answers.
Ask = Callable[[Sequence[Sequence[EncodableT]]], Awaitable[list[Any]]]


class About(NamedTuple):
    """What is known about a stream.

    over           "" while it runs, `ok`, `failed`, or `broken`: its relay is gone
    owner_silent   seconds since its relay has said that it lives, as far as this relay can tell (Heard)
    beat, copied   its relay's last beat, and the last one after whose end it has copied all that it had (`beat` below); 0 where
                   it has no lease
    """

    owner: str
    caller: str
    first: int
    last: int
    over: str
    has_events: bool
    owner_silent: float
    beat: int
    copied: int


class CopiedSince:
    """Tells of a stream that is looked at again and again whether its relay has copied all that it had at the first look."""

    def __init__(self) -> None:
        self._seen: int | None = None
        self._all = False

    def all(self, about: About) -> bool:
        """What the looks before this one have told: each reads the events first, and the beats after them."""
        before = self._all
        if self._seen is None and about.beat:
            self._seen = about.beat
        self._all = self._seen is not None and about.copied > self._seen
        return before


class Heard:
    """When each relay has last said that it lives, by the clock of who looks. Sans-IO.

    A lease that is missing is no proof of a death: Redis drops leases where it is full or flushed, and a relay that lives has
    one again within a beat. So silence counts from the last beat that was seen; where none was seen lately, the relay counts as
    gone when it has had no lease for UNKNOWN_SECONDS of looks.
    """

    def __init__(self) -> None:
        # By relay its last beat, and the last look; the longest not looked at first.
        self._relays: dict[str, tuple[float, float]] = {}

    def silent(self, relay: str, left: float | None, now: float) -> float:
        """Seconds since its last beat, where a look has found `left` seconds of its lease, or none (None)."""
        before = self._relays.pop(relay, None)
        if left is not None:
            beat = now - max(LEASE_SECONDS - left, 0.0)
        elif before is not None and now - before[1] < UNKNOWN_SECONDS:
            beat = before[0]
        else:
            beat = now - (LEASE_SECONDS - UNKNOWN_SECONDS)
        self._relays[relay] = beat, now
        while self._relays[oldest := next(iter(self._relays))][1] < now - UNKNOWN_SECONDS:
            del self._relays[oldest]
        return now - beat


class Beaten(NamedTuple):
    """What a relay learns as it says that it lives.

    wanted      those of the streams it has asked for that others follow
    had_lease   whether Redis still had its lease; where it had not, it may have lost anything
    """

    wanted: set[str]
    had_lease: bool


class Entry(NamedTuple):
    """What the reader has read: an event, or, with `over`, the end of the stream after the event `number` - 1."""

    number: int
    event: bytes
    over: str


class RedisLog:
    """The commands of one relay; all raise redis_client.FAILURES.

    keep_seconds   how long events are kept after the last change
    """

    def __init__(
        self, options: SharedThrough, keep_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._heard = Heard()
        self._prefix = f"{options.prefix}resume:"
        self._token = secrets.token_hex(8)
        self._keep_ms = round(keep_seconds * 1000)
        timeout = options.timeout_seconds
        self._client = client(
            options.url, connections=COMMAND_CONNECTIONS, connect_seconds=timeout, answer_seconds=timeout
        )
        self._reader = client(
            options.url, connections=1, connect_seconds=timeout, answer_seconds=BLOCK_SECONDS + timeout
        )
        self._line = Line(options.url, connect_seconds=timeout, answer_seconds=timeout)
        folder = Path(__file__).parent
        self._append = _Script((folder / "append.lua").read_text(encoding="utf-8"))
        self._break = _Script((folder / "break.lua").read_text(encoding="utf-8"))
        self._woken = b"0"  # the newest entry of the wake stream that was read

    async def close(self) -> None:
        await self._client.aclose()
        await self._reader.aclose()
        await self._line.close()

    async def copy(self, parts: Sequence[Copied]) -> dict[int, int]:
        """Store events of several streams in one round trip.

        Returns what append.lua returns: for each of the parts, by its place, whose copy does not end with its last event, the
        number of the event that it ends with. Usually nothing.
        """
        starts = range(0, len(parts), CALL_STREAMS)
        calls = [self._call(parts[start : start + CALL_STREAMS]) for start in starts]
        differ: dict[int, int] = {}
        for start, answer in zip(starts, await self._append.run(self._line.ask, calls), strict=True):
            numbers = [int(number) for number in answer.split()]
            differ |= {start + place: last for place, last in zip(numbers[::2], numbers[1::2], strict=True)}
        return differ

    def _call(self, parts: Sequence[Copied]) -> tuple[list[bytes], list[bytes]]:
        """The keys and arguments of append.lua, as bytes, and as few as possible: each costs as much as an event."""
        keys: list[bytes] = []
        arguments = [str(one).encode() for one in (self._token, self._keep_ms, REMEMBERED * self._keep_ms)]
        before_stream, before_about = self._stream_of(""), self._about_of("")
        for stream, caller, first, number, last, over, events in parts:
            keys += ((before_stream + stream).encode(), (before_about + stream).encode())
            arguments += (f"{first} {number} {last} {over or 'open'} {caller}".encode(), events)
        return keys, arguments

    async def name(self, names: Mapping[tuple[str, str], Named]) -> None:
        """Store the streams of responses, by caller and the response's id."""
        pipeline = self._client.pipeline(transaction=False)
        for (caller, response_id), named in names.items():
            value = f"{named.stream} {named.difference}"
            pipeline.set(self._response_of(caller, response_id), value, px=REMEMBERED * self._keep_ms)
        await pipeline.execute()

    async def drop(self, streams: Sequence[str]) -> None:
        """Remove the events of streams, and keep what is known about them."""
        await self._client.unlink(*map(self._stream_of, streams))

    async def break_off(self, stream: str) -> None:
        """End a stream whose relay is gone."""
        error = encode(StreamBrokenError().body()).rstrip()
        keys = (self._stream_of(stream), self._about_of(stream))
        await self._break.run(self._pipelined, [(keys, (error, self._keep_ms, REMEMBERED * self._keep_ms))])

    async def about(self, streams: Sequence[str]) -> list[About | None]:
        """What is known about each stream; None where it is unknown."""
        pipeline = self._client.pipeline(transaction=False)
        for stream in streams:
            pipeline.hmget(self._about_of(stream), ["owner", "caller", "first", "last", "over"])
            pipeline.exists(self._stream_of(stream))
        rows = await pipeline.execute()
        known = [
            [(value or b"").decode() for value in fields] if fields[0] is not None else None for fields in rows[::2]
        ]
        owners = {fields[0] for fields in known if fields is not None}
        silent = await self._silent(owners)
        return [
            None
            if fields is None
            else About(
                fields[0], fields[1], int(fields[2]), int(fields[3]), fields[4], bool(exists), *silent[fields[0]]
            )
            for fields, exists in zip(known, rows[1::2], strict=True)
        ]

    async def of_response(self, response_id: str, caller: str) -> Named | None:
        """The stream of a response; None where it is unknown."""
        value: Any = await self._client.get(self._response_of(caller, response_id))
        if value is None:
            return None
        stream, _, difference = value.decode().partition(" ")
        return Named(stream, int(difference))

    async def beat(self, number: int, copied: int, followed: Sequence[str], asked: Sequence[str]) -> Beaten:
        """Say that this relay lives and that clients follow streams here; `asked` are streams that others may follow.

        Beats are numbered, and `copied` is the last one after whose end the relay has copied all that it had. So whoever sees a
        beat, and later that the one after it is copied, knows that all there was when he looked first is in Redis, whatever the
        clocks say and however late a command was carried out.
        """
        lease_ms = round(LEASE_SECONDS * 1000)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(self._relay_of(self._token), f"{number} {copied}", px=lease_ms, get=True)
        for stream in followed:
            pipeline.set(f"{self._prefix}wanted:{stream}", "1", px=lease_ms)
        for stream in asked:
            pipeline.exists(f"{self._prefix}wanted:{stream}")
        lease, *answers = await pipeline.execute()
        wanted = {stream for stream, exists in zip(asked, answers[len(followed) :], strict=True) if exists}
        return Beaten(wanted, had_lease=lease is not None)

    async def wake(self) -> None:
        """Make the blocking reader return."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xadd(self._wake_key, {"w": "1"}, maxlen=1, approximate=False)
        pipeline.pexpire(self._wake_key, round(LEASE_SECONDS * 1000))
        await pipeline.execute()

    async def read(self, after: Mapping[str, int]) -> dict[str, list[Entry]]:
        """Wait for entries of streams after the events with these numbers, or until `wake`, or for BLOCK_SECONDS.

        Returns the entries by stream. To be called by one task at a time.
        """
        positions: dict[Any, Any] = {self._wake_key: self._woken}
        positions |= {self._stream_of(stream): f"{number}-0" for stream, number in after.items()}
        rows: Any = await self._reader.xread(positions, count=READ_ENTRIES, block=round(BLOCK_SECONDS * 1000))
        found: dict[str, list[Entry]] = {}
        for key, entries in rows or ():
            name = key.decode()
            if name == self._wake_key:
                self._woken = entries[-1][0]
            else:
                found[name.removeprefix(self._stream_of(""))] = [one for entry in entries for one in _events(*entry)]
        return found

    async def _silent(self, owners: set[str]) -> dict[str, tuple[float, int, int]]:
        """The last three of About, for each relay."""
        if not owners:
            return {}
        names = list(owners)
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(self._relay_of(name))
            pipeline.get(self._relay_of(name))
        answers = await pipeline.execute()
        now = self._clock()
        found = {}
        for name, left, said in zip(names, answers[::2], answers[1::2], strict=True):
            there = left >= 0 and said is not None
            number, copied = map(int, said.split()) if there else (0, 0)
            found[name] = (self._heard.silent(name, left / 1000 if there else None, now), number, copied)
        return found

    async def _pipelined(self, commands: Sequence[Sequence[EncodableT]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute())

    def _stream_of(self, stream: str) -> str:
        return f"{self._prefix}stream:{stream}"

    def _about_of(self, stream: str) -> str:
        return f"{self._prefix}about:{stream}"

    def _response_of(self, caller: str, response_id: str) -> str:
        return f"{self._prefix}response:{caller}:{response_id}"

    def _relay_of(self, token: str) -> str:
        return f"{self._prefix}relay:{token}"

    @property
    def _wake_key(self) -> str:
        return f"{self._prefix}wake:{self._token}"


class _Script:
    """A script that is called several times in one round trip. Redis forgets scripts when it restarts: loads it again then."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = ""

    async def run(self, ask: Ask, calls: Sequence[tuple[Sequence[EncodableT], Sequence[EncodableT]]]) -> list[Any]:
        """Call it with each of these keys and arguments. Both scripts change nothing when they are called again."""
        if not self._sha:
            await self._load(ask)
        try:
            return await self._call(ask, calls)
        except NoScriptError:
            await self._load(ask)
            return await self._call(ask, calls)

    async def _load(self, ask: Ask) -> None:
        (sha,) = await ask([("SCRIPT LOAD", self._text)])
        self._sha = sha.decode() if isinstance(sha, bytes) else sha

    async def _call(self, ask: Ask, calls: Sequence[tuple[Sequence[EncodableT], Sequence[EncodableT]]]) -> list[Any]:
        return await ask([("EVALSHA", self._sha, len(keys), *keys, *arguments) for keys, arguments in calls])


def _events(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[Entry]:
    number = int(entry_id.partition(b"-")[0])
    over = fields.get(b"o")
    if over is not None:
        return [Entry(number, b"", over.decode())]
    events = fields[b"b"].split(BETWEEN)
    return [Entry(one, event, "") for one, event in enumerate(events, number - len(events) + 1)]
