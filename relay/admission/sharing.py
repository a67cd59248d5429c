"""Limits that several relays share: what the gate asks for. Imports no Redis client, which a relay without Redis need not have
installed."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Leased", "Shared", "SharedOptions", "Taken"]


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """The Redis through which several relays share their limits.

    url               with its password, if it has one: never to be logged
    prefix            the prefix of the relay's keys
    timeout_seconds   of one question, connecting included
    lease_seconds     after which the place of a stream is free again where its relay does not renew it
    rate, key_rate    requests a second, of all callers and of each; 0: no limit
    burst             requests that may come at once
    key_max_streams   streams of one caller open at once; 0: no limit
    """

    url: str
    prefix: str
    timeout_seconds: float
    lease_seconds: float
    rate: float
    key_rate: float
    burst: int
    key_max_streams: int


class Taken(NamedTuple):
    """The answer to a request: whose bucket had no token, None where both had one; and the tokens that are left in them."""

    refused: Literal["all", "key"] | None
    all_tokens: float
    key_tokens: float


class Leased(NamedTuple):
    """The answer to a stream: whether it has a place now, and how many places of its caller are taken at other relays."""

    granted: bool
    elsewhere: int


class Shared(Protocol):
    """The shared limits. A question that is not answered in time is None: the gate then goes by its own limits."""

    @property
    def state(self) -> str:
        """One word for /readyz: `redis`, or `redis_away`: each relay goes by its own limits."""

    def serving(self) -> AbstractAsyncContextManager[None]:
        """Renew and give back places for as long as the `with` block runs."""

    async def take(self, key: str) -> Taken | None:
        """Take a token of all callers and one of this caller: both or none."""

    async def lease(self, key: str, member: str) -> Leased | None:
        """Take a place for a stream of this caller. `member`: a name for the stream that no other has."""

    def hold(self, key: str, member: str) -> None:
        """The stream is open: its place is renewed until `drop`, or taken once Redis is back."""

    def drop(self, key: str, member: str) -> None:
        """Give the place back. Never waits."""

    def statistics(self) -> dict[str, int]:
        """`up`: whether Redis answers. Questions that it `answered`, that `failed`, that nobody asked while it was `away`."""
