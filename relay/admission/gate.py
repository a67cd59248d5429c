"""Admission: which requests are let in. A refused request costs a few hundred bytes; an admitted stream may cost its whole
budget (memory/budget.py).

The law of this file: it limits the resources that would run out. A refusal because the relay is full is a 503 (another
instance may have room), a refusal because of the caller's own use is a 429; both have a Retry-After, and are counted by reason.

| reason | answer | limit |
|---|---|---|
| `streams` | 503 | RELAY_MAX_STREAMS are open |
| `bytes` | 503 | RELAY_BUDGET_BYTES are reserved: each open stream reserves its whole budget; kept streams count as they are |
| `memory` | 503 | the process or its cgroup uses more than RELAY_MEMORY_SHARE of its memory limit |
| `concurrency` | 429 | this caller has RELAY_KEY_MAX_STREAMS open |
| `rate` | 429 | more requests a second than RELAY_KEY_RATE of this caller, or RELAY_RATE of all (token buckets) |

The last two may be shared by several relays (sharing.py). The first three never are: they are this process's resources. While
the shared limits do not answer, the gate goes by its own; what they answered last is in its own buckets, so that these go on
from there.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from ..errors import RETRY_SECONDS, OverloadedError, TooManyError
from .sharing import Shared
from .standing import CONCURRENT, Standing, quota_of

__all__ = ["MAX_KEYS", "Admission", "Gate", "TokenBucket"]

# Callers whose buckets are kept. The table drops the least recently seen one, since a caller starts with a full bucket.
MAX_KEYS: Final = 10_000
MEMORY_READING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Admission:
    """The limits; 0 is none.

    stream_bytes      what each open stream reserves of `budget_bytes`
    memory_share      of the memory limit, from 0 to 1
    rate, key_rate    requests a second, of all callers and of each
    burst             requests that may come at once
    """

    max_streams: int
    budget_bytes: int
    stream_bytes: int
    memory_share: float = 0.0
    key_max_streams: int = 0
    rate: float = 0.0
    key_rate: float = 0.0
    burst: int = 1


class TokenBucket:
    """A token bucket: `burst` tokens at most, `rate` new ones a second, one for each request. `now` in monotonic seconds.

    >>> bucket = TokenBucket(rate=2, burst=1, now=0.0)
    >>> bucket.take(0.0), bucket.take(0.0), bucket.take(0.5)
    (0.0, 0.5, 0.0)
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), now

    def take(self, now: float) -> float:
        """Take a token. Returns 0.0, or where there is none the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def peek(self, now: float) -> float:
        """How many tokens there are; none is taken."""
        return min(self._burst, self._tokens + (now - self._at) * self._rate)

    def reset(self, now: float) -> int | None:
        """In how many whole seconds, rounded up, there will be one more whole token; None for a full bucket."""
        tokens = self.peek(now)
        return None if tokens >= self._burst else math.ceil((math.floor(tokens) + 1 - tokens) / self._rate)

    def set(self, tokens: float, now: float) -> None:
        """Hold so many tokens from now on: those that a bucket shared with others has."""
        self._tokens, self._at = tokens, now

    def give_back(self) -> None:
        """Return a token: its request was refused for another reason."""
        self._tokens = min(self._burst, self._tokens + 1)


class Gate:
    """Admits or refuses requests and streams. For one event loop only.

    reject   called with the reason of each refusal
    memory   returns the share of its memory limit that the process uses now, None where there is no limit
    kept     returns the bytes that are kept of streams for clients that come back; None where none are
    shared   the limits that several relays share; None where they do not
    """

    def __init__(
        self,
        admission: Admission,
        *,
        reject: Callable[[str], None],
        memory: Callable[[], float | None],
        kept: Callable[[], int] | None = None,
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept = kept
        self._shared = shared
        self._admission = admission
        self._reject = reject
        self._memory = memory
        self._clock = clock
        self._open = 0
        self._open_by_key: Counter[str] = Counter()
        self._all = TokenBucket(admission.rate, admission.burst, clock())
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._elsewhere: OrderedDict[str, int] = OrderedDict()  # by caller, streams at other relays as last told
        self._memory_share: float | None = None
        self._memory_read_at = -math.inf

    @property
    def shared(self) -> Shared | None:
        return self._shared

    @property
    def open(self) -> int:
        return self._open

    @property
    def keys(self) -> int:
        """How many callers have a token bucket now."""
        return len(self._buckets)

    def standing(self, key: str) -> list[Standing]:
        """Where this caller stands with its limits now."""
        admission, now = self._admission, self._clock()
        standings = []
        if admission.key_rate:
            bucket = self._buckets.get(key) or TokenBucket(admission.key_rate, admission.burst, now)
            standings.append(_standing("requests", admission.key_rate, admission.burst, bucket, now))
        if admission.key_max_streams:
            limit = admission.key_max_streams
            left = max(0, limit - self._open_by_key[key] - self._elsewhere.get(key, 0))
            standings.append(Standing("streams", limit, left, unit=CONCURRENT))
        if admission.rate and self._all.peek(now) < 1:
            standings.append(_standing("all", admission.rate, admission.burst, self._all, now))
        return standings

    async def admit(self, key: str) -> None:
        """Admit a request of this caller, before its body is read. Raises OverloadedError and TooManyError."""
        admission = self._admission
        taken = None
        if self._shared is not None and (admission.rate or admission.key_rate):
            self._check_room()
            taken = await self._shared.take(key)
        if taken is None:
            self.request(key)
            return
        now = self._clock()
        self._all.set(taken.all_tokens, now)
        if admission.key_rate:
            self._bucket(key, now).set(taken.key_tokens, now)
        if taken.refused == "all":
            self._refuse_rate(admission.rate, "", (1 - taken.all_tokens) / admission.rate)
        elif taken.refused == "key":
            self._refuse_rate(admission.key_rate, " of this caller", (1 - taken.key_tokens) / admission.key_rate)

    def request(self, key: str) -> None:
        """As `admit`, by the limits of this relay alone."""
        self._check_room()
        self._check_rate(key)

    async def place(self, key: str) -> AbstractContextManager[None]:
        """One stream's place, for as long as the `with` block runs. Raises TooManyError, and entering it OverloadedError too.

        A place that is not entered is free again after a lease's time.
        """
        if self._shared is None or not self._admission.key_max_streams:
            return _Place(self, key)
        self._check_room()
        member = uuid.uuid4().hex
        leased = await self._shared.lease(key, member)
        if leased is None:
            self._elsewhere.clear()
            return _SharedPlace(self, key, self._shared, member, leased=False)
        self._elsewhere[key] = leased.elsewhere
        self._elsewhere.move_to_end(key)
        if len(self._elsewhere) > MAX_KEYS:
            self._elsewhere.popitem(last=False)
        if not leased.granted:
            self._refuse_concurrency()
        return _SharedPlace(self, key, self._shared, member, leased=True)

    def stream(self, key: str) -> AbstractContextManager[None]:
        """As `place`, by the limits of this relay alone. Entering raises OverloadedError and TooManyError."""
        return _Place(self, key)

    def enter(self, key: str, *, leased: bool = False) -> None:
        """Take a place. `leased`: the shared limits have given one, so that this caller's other streams here do not matter."""
        self._check_room()
        limit = self._admission.key_max_streams
        if limit and not leased and self._open_by_key[key] >= limit:
            self._refuse_concurrency()
        self._open += 1
        self._open_by_key[key] += 1

    def leave(self, key: str) -> None:
        self._open -= 1
        self._open_by_key[key] -= 1
        if not self._open_by_key[key]:
            del self._open_by_key[key]

    def _check_room(self) -> None:
        admission = self._admission
        if admission.max_streams and self._open >= admission.max_streams:
            self._refuse("streams", "the relay has as many streams open as it takes")
        kept = self._kept() if self._kept is not None else 0
        if admission.budget_bytes and (self._open + 1) * admission.stream_bytes + kept > admission.budget_bytes:
            self._refuse("bytes", "the relay's streams hold as many bytes as they may")
        share = self._share_of_memory() if admission.memory_share else None
        if share is not None and share > admission.memory_share:
            self._refuse("memory", "the relay is short of memory")

    def _check_rate(self, key: str) -> None:
        admission, now = self._admission, self._clock()
        wait = self._all.take(now) if admission.rate else 0.0
        if wait:
            self._refuse_rate(admission.rate, "", wait)
        if not admission.key_rate:
            return
        wait = self._bucket(key, now).take(now)
        if wait:
            self._all.give_back()
            self._refuse_rate(admission.key_rate, " of this caller", wait)

    def _bucket(self, key: str, now: float) -> TokenBucket:
        """This caller's bucket, which becomes the most recently used one."""
        bucket = self._buckets.pop(key, None) or TokenBucket(self._admission.key_rate, self._admission.burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return bucket

    def _share_of_memory(self) -> float | None:
        now = self._clock()
        if now - self._memory_read_at >= MEMORY_READING_SECONDS:
            self._memory_read_at = now
            self._memory_share = self._memory()
        return self._memory_share

    def _refuse(self, reason: str, message: str) -> None:
        self._reject(reason)
        raise OverloadedError(f"{message}; try again", RETRY_SECONDS)

    def _refuse_rate(self, rate: float, whose: str, seconds: float) -> None:
        self._refuse_key("rate", f"more than {rate:g} requests a second{whose}", seconds)

    def _refuse_concurrency(self) -> None:
        limit = self._admission.key_max_streams
        self._refuse_key("concurrency", f"{limit} streams of this caller are open", RETRY_SECONDS)

    def _refuse_key(self, reason: str, message: str, seconds: float) -> None:
        self._reject(reason)
        raise TooManyError(f"{message}; try again in {math.ceil(seconds)} s", seconds)


def _standing(name: str, rate: float, burst: int, bucket: TokenBucket, now: float) -> Standing:
    quota, window = quota_of(rate, burst)
    return Standing(name, quota, math.floor(bucket.peek(now)), window=window, reset=bucket.reset(now))


class _Place:
    """The context manager of one open stream. A class, since a generator would be larger, and each open stream keeps one."""

    __slots__ = ("_gate", "_key")

    def __init__(self, gate: Gate, key: str) -> None:
        self._gate, self._key = gate, key

    def __enter__(self) -> None:
        self._gate.enter(self._key)

    def __exit__(self, *_: object) -> None:
        self._gate.leave(self._key)


class _SharedPlace:
    """As _Place, where the place is one of several relays' together.

    member   the stream's name among the caller's places
    leased   whether it has a place there; False while the shared limits do not answer: this relay's own limit is looked at
    """

    __slots__ = ("_gate", "_key", "_leased", "_member", "_shared")

    def __init__(self, gate: Gate, key: str, shared: Shared, member: str, *, leased: bool) -> None:
        self._gate, self._key, self._shared = gate, key, shared
        self._member, self._leased = member, leased

    def __enter__(self) -> None:
        try:
            self._gate.enter(self._key, leased=self._leased)
        except BaseException:
            self._shared.drop(self._key, self._member)
            raise
        self._shared.hold(self._key, self._member)

    def __exit__(self, *_: object) -> None:
        self._gate.leave(self._key)
        self._shared.drop(self._key, self._member)
