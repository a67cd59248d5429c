"""All monitors of a fleet, asked by this one: at most once in a few seconds, however many look.

The targets are words of the operator's, as `diagnostics fleet --targets` has them; a word that gives no monitor is told
beside the rows of the others. Names are resolved in threads of their own, one for each word at most: a resolver that hangs
must not take the threads in which verdicts are made.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ...errors import DiagnosticsError, NotFoundError
from ...fleet.replicas import Replica, odd

if TYPE_CHECKING:
    from ...fleet.targets import Target

__all__ = ["SCHEMA", "FleetLook", "FleetRows"]

SCHEMA: Final = "highwater.fleet/1"
SHARED_SECONDS: Final = 5.0
_RESOLVE_SECONDS: Final = 6.0
_PASSWORD: Final = re.compile(r"//[^/@\s]*@")


class FleetRows:
    """One answer: `replicas` with the reasons why some are odd, `unresolved` words with why, and when they were asked."""

    def __init__(self, replicas: Sequence[Replica], unresolved: dict[str, str]) -> None:
        self.time = time.time()
        self.replicas = replicas
        self.unresolved = unresolved
        self.reasons = odd(replicas)

    def to_json(self) -> dict[str, Any]:
        rows = [{**asdict(replica), "odd": self.reasons.get(replica.name)} for replica in self.replicas]
        unresolved = [{"word": word, "error": error} for word, error in self.unresolved.items()]
        return {"schema": SCHEMA, "time": self.time, "replicas": rows, "unresolved": unresolved}


class FleetLook:
    """`words` name the targets; `tokens`: of this monitor, the one that is shown to the targets first."""

    def __init__(self, words: Sequence[str], tokens: Iterable[str], shared_seconds: float = SHARED_SECONDS) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._tokens = [token for token in tokens if token]
        self._shared_seconds = shared_seconds
        self._lock = asyncio.Lock()
        self._shared: tuple[float, FleetRows] | None = None
        self._resolving: dict[str, asyncio.Future[list[Target]]] = {}

    async def read(self) -> FleetRows:
        """The rows, at most a few seconds old. Raises NotFoundError where no targets are set."""
        if not self.words:
            raise NotFoundError(
                "this monitor knows no fleet: it has no targets",
                remedy="start it with --fleet, or set DIAGNOSTICS_FLEET_TARGETS: docs/fleet.md has the words",
            )
        async with self._lock:
            if self._shared is None or time.monotonic() - self._shared[0] >= self._shared_seconds:
                rows = await self._ask()
                self._shared = time.monotonic(), rows
            return self._shared[1]

    async def _ask(self) -> FleetRows:
        from ...fleet.overviews import (
            overviews,  # loaded where a fleet is asked for: a monitor without one does without httpx2
        )

        found = await asyncio.gather(*map(self._targets_of, self.words))
        # A monitor that several words give is asked once; a name that is not only its address is preferred.
        by_url: dict[str, Target] = {}
        unresolved: dict[str, str] = {}
        for word, targets in zip(self.words, found, strict=True):
            if isinstance(targets, str):
                unresolved[_shown(word)] = _shown(targets)
                continue
            for target in targets:
                if target.url not in by_url or target.url.endswith(f"//{by_url[target.url].name}"):
                    by_url[target.url] = target
        replicas = await overviews(sorted(by_url.values()), self._tokens[0] if self._tokens else "")
        return FleetRows([self._without_tokens(replica) for replica in replicas], unresolved)

    async def _targets_of(self, word: str) -> list[Target] | str:
        """The targets of one word, or why there are none."""
        resolving = self._resolving.get(word)
        if resolving is None:
            resolving = self._resolving[word] = _resolved_beside(word)
        done, _ = await asyncio.wait([resolving], timeout=_RESOLVE_SECONDS)
        if not done:
            return f"nothing was found within {_RESOLVE_SECONDS:g} s; it is still being looked for"
        del self._resolving[word]
        try:
            return resolving.result()
        except DiagnosticsError as error:
            return str(error)

    def _without_tokens(self, replica: Replica) -> Replica:
        """A target was shown the token: were it to say it again, the page must not."""

        def hidden(value: Any) -> Any:
            if isinstance(value, str):
                for token in self._tokens:
                    value = value.replace(token, "(hidden)")
                return value
            return tuple(map(hidden, value)) if isinstance(value, tuple) else value

        named = {name: getattr(replica, name) for name in replica.__slots__}
        return Replica(**{name: hidden(value) if name != "url" else value for name, value in named.items()})


def _resolved_beside(word: str) -> asyncio.Future[list[Target]]:
    """`resolve` in a thread of its own, which nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Target]] = loop.create_future()

    def tell(targets: list[Target] | None, error: Exception | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(targets or [])

    def work() -> None:
        from ...fleet.targets import resolve

        targets, failure = None, None
        try:
            targets = resolve([word])
        except Exception as error:  # noqa: BLE001  # raised again where it is awaited
            failure = error
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(tell, targets, failure)
            except RuntimeError:  # the monitor has ended meanwhile
                return

    try:
        threading.Thread(target=work, name="fleet targets", daemon=True).start()
    except RuntimeError as error:
        future.set_exception(DiagnosticsError(f"this monitor could start no thread to look for it: {error}"))
    return future


def _shown(text: str) -> str:
    """Without a password in an address."""
    return _PASSWORD.sub("//", text)
