"""A client of the monitor beside a subject: HTTP and JSON only, without imports from the monitor."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx2

from ...analysis.growth import Reading
from ...analysis.profile import Profile
from ...errors import BusyError, DiagnosticsError, ProtocolError, TargetError, TargetSilentError, UsageError
from .outside import family, is_python, read_from_outside

__all__ = ["Grown", "LoadCapture", "MonitorClient"]

_SCHEMA = "highwater.memory/1"
_TIMEOUT_SECONDS = 10.0
# Rendering is slow on a busy machine; a capture that takes longer than this is stuck.
_CAPTURE_SECONDS = 90.0
# Whoever takes the capture before gives it up after that time, and then it has to end.
_TURN_SECONDS = _CAPTURE_SECONDS + 30.0
_POLL_SECONDS = 0.2
# Between the two censuses that show which types grow.
_GROWN_SECONDS = 1.0
# Smaller growth of a type is chance, or caused by the reading itself.
_LEAST_GROWN_BYTES = 4096
_LEAST_GROWN_SHARE = 0.02
_OURS = "highwater_diagnostics"
# Where all types together gain less than this share of the in-use bytes gained per second, none is named: the memory is not in
# Python objects. Below that gain of in-use bytes the share is not checked.
_LEAST_EXPLAINED_SHARE = 0.3
_LEAST_GAIN_BYTES_PER_SECOND = 64 * 1024


@dataclass(frozen=True, slots=True)
class Grown:
    """A type of objects that grew while streams were open, and the reference paths to samples of it."""

    type: str
    bytes_delta: int
    count_delta: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class LoadCapture:
    """The holders of a service's memory under load.

    profile, flamegraph   memray's profile of blocks live at the end of the capture, and its flame graph as HTML
    grown                 types of objects that grew meanwhile, most growth first
    grown_unknown         why `grown` is unknown; empty where it is known
    """

    profile: Profile
    flamegraph: bytes
    coverage_percent: float | None
    grown: tuple[Grown, ...] = ()
    grown_unknown: str = ""


class MonitorClient:
    """A client of one monitor; its creator must close it.

    pids      the subject's workers at the last reading
    outside   the subject has no agent (it is no Python process): its memory is read from outside
    unknown   why in-use bytes are unknown and RSS is read in their place; empty where they are known
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.pids: tuple[int, ...] = ()
        self.outside = False
        self.unknown = ""
        self._workers: list[dict[str, Any]] = []
        self._http = httpx2.AsyncClient(
            timeout=_TIMEOUT_SECONDS, headers={"accept": "application/json"}, trust_env=False
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def reading(self) -> Reading | None:
        """One reading of the subject; None while a worker does not answer. Raises TargetError, ProtocolError."""
        before = time.monotonic()
        answer = await self._json("GET", self.url)
        self.pids = tuple(worker["process"]["pid"] for worker in answer["workers"])
        self._workers = _of_agents(answer)
        moment = (before + time.monotonic()) / 2
        return (
            read_from_outside(self.pids, moment) if self.outside else _reading(answer, moment, rss=bool(self.unknown))
        )

    async def first_reading(self, timeout_seconds: float) -> Reading:
        """Wait until the monitor has found the subject's agent and has its memory figures."""
        deadline = time.monotonic() + timeout_seconds
        while (reading := await self.reading()) is None:
            if self.pids and not any(is_python(pid) for pid in family(self.pids)):
                self.outside = True
                self.unknown = "it is no Python process, and is read from outside, its garbage not collected"
                continue
            self.unknown = _why_unknown(self._workers)
            if self.unknown:
                continue
            if time.monotonic() > deadline:
                raise TargetSilentError(
                    f"the monitor at {self.url} has no worker that tells its in-use bytes after {timeout_seconds:g} s",
                    remedy="the subject must be a Python service that the agent can be injected into",
                )
            await asyncio.sleep(_POLL_SECONDS)
        return reading

    async def balance(self) -> dict[str, int]:
        """Resident memory by its parts, in bytes, summed over the workers; unknown parts are left out."""
        answer = await self._json("GET", self.url + "/balance")
        parts: Counter[str] = Counter()
        for worker in answer["workers"]:
            for part, size in ((worker["balance"] or {}).get("parts") or {}).items():
                if size is not None:
                    parts[part] += size
        return dict(parts)

    async def capture(self, seconds: float, window_over: Callable[[], None]) -> LoadCapture:
        """Find the types that grow, then take a memray capture of `seconds`; calls `window_over` once no load is needed."""
        try:
            grown, unknown = await self._grown()
            # The scenarios' own source is no secret: the flame graph may show it.
            state, place = await self._taken({"kind": "memray", "seconds": seconds, "source_lines": True}, window_over)
        finally:
            window_over()
        artifacts = {artifact["name"] for artifact in state["artifacts"]}
        if not {"flamegraph.html", "profile.json"} <= artifacts:
            raise ProtocolError(
                f"the capture {place} lacks flamegraph.html or profile.json: it has {sorted(artifacts)}"
            )
        flamegraph = await self._send("GET", f"{place}/artifacts/flamegraph.html")
        try:
            profile = Profile.from_json(await self._json("GET", f"{place}/artifacts/profile.json"))
        except UsageError as error:
            raise ProtocolError(f"the capture {place}: {error.message}") from error
        coverage = (state.get("result") or {}).get("coverage_percent")
        return LoadCapture(profile, flamegraph.content, coverage, grown, unknown)

    async def _grown(self) -> tuple[tuple[Grown, ...], str]:
        try:
            before = await self.reading()
            order = {"kind": "objects", "seconds": _GROWN_SECONDS, "paths": True}
            state, _ = await self._taken(order, lambda: None)
            after = await self.reading()
        except DiagnosticsError as error:
            # The profile is taken even where the objects cannot be read.
            return (), error.message
        rows, paths = state["result"]["top"], state["result"]["paths"]
        gain = 0.0
        if before is not None and after is not None:
            gain = (after.in_use_bytes - before.in_use_bytes) / (after.time - before.time)
        objects = (state["result"]["bytes_delta"] or 0) / _GROWN_SECONDS
        if gain >= _LEAST_GAIN_BYTES_PER_SECOND and objects < gain * _LEAST_EXPLAINED_SHARE:
            return (), (
                f"Python's objects grew by {max(0, objects):,.0f} bytes a second and memory in use by {gain:,.0f}:"
                " most of it is no object's (a C library's, or kept by an allocator)"
            )
        least = max(_LEAST_GROWN_BYTES, _LEAST_GROWN_SHARE * sum(max(0, row["bytes_delta"] or 0) for row in rows))
        return tuple(
            Grown(
                row["type"],
                row["bytes_delta"],
                row["count_delta"],
                tuple(way["path"] for way in paths.get(row["type"], ()) if _OURS not in way["path"]),
            )
            for row in rows
            if (row["bytes_delta"] or 0) >= least
        ), ""

    async def _taken(self, order: dict[str, Any], window_over: Callable[[], None]) -> tuple[dict[str, Any], str]:
        """Take a capture and return its JSON and path. Forced: slowing a busy service does not matter here."""
        place = urljoin(self.url, await self._begun({**order, "force": True}))
        try:
            deadline = time.monotonic() + order["seconds"] + _CAPTURE_SECONDS
            return await self._finished(place, deadline, window_over), place
        except TargetSilentError:
            # It would block the next capture.
            with suppress(DiagnosticsError):
                await self._send("DELETE", place)
            raise

    async def _begun(self, order: dict[str, Any]) -> str:
        """Begin a capture, once the previous one has ended, and return its path."""
        deadline = time.monotonic() + _TURN_SECONDS
        while True:
            try:
                response = await self._send("POST", self.url + "/captures", json=order)
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return str(response.headers["location"])

    async def _finished(self, place: str, deadline: float, window_over: Callable[[], None]) -> dict[str, Any]:
        while True:
            state = await self._json("GET", place)
            if state["state"] == "done":
                return state
            if state["state"] in ("failed", "cancelled"):
                reason = (state.get("error") or {}).get("message", "no reason given")
                raise TargetError(f"the capture {place} {state['state']}: {reason}", code="capture_failed")
            if state["state"] == "rendering":
                window_over()
            if time.monotonic() > deadline:
                raise TargetSilentError(f"the capture {place} is still {state['state']} after {_CAPTURE_SECONDS:g} s")
            await asyncio.sleep(_POLL_SECONDS)

    async def _json(self, method: str, url: str) -> dict[str, Any]:
        response = await self._send(method, url)
        try:
            body = response.json()
        except ValueError as error:
            raise ProtocolError(f"{method} {url} answered something else than JSON: {error}") from error
        if not isinstance(body, dict):
            raise ProtocolError(f"{method} {url} answered {type(body).__name__}, not an object")
        return body

    async def _send(self, method: str, url: str, json: Any = None) -> httpx2.Response:
        try:
            response = await self._http.request(method, url, json=json)
        except httpx2.TimeoutException as error:
            raise TargetSilentError(
                f"the monitor did not answer {method} {url} within {_TIMEOUT_SECONDS:g} s"
            ) from error
        except httpx2.TransportError as error:
            raise TargetError(f"the monitor at {self.url} cannot be reached: {error!r}", code="monitor_left") from error
        if response.is_error:
            kind = BusyError if response.status_code == BusyError.http_status else TargetError
            raise kind(f"the monitor answered {method} {url} with {response.status_code}: {response.text[:500]}")
        return response


def _reading(answer: dict[str, Any], moment: float, *, rss: bool) -> Reading | None:
    """The sum over the workers; None where there is none or one is silent. Raises ProtocolError for an unknown schema.

    rss   use resident bytes as in-use bytes, which are unknown
    """
    if answer.get("schema") != _SCHEMA:
        raise ProtocolError(f"the monitor speaks {answer.get('schema')!r}, this proof understands {_SCHEMA!r}")
    key = "rss_bytes" if rss else "in_use_bytes"
    workers = _of_agents(answer)
    if not workers or any(worker["state"] != "answering" or worker["memory"][key] is None for worker in workers):
        return None
    tasks = [worker["tasks"] for worker in workers]
    return Reading(
        time=moment,
        in_use_bytes=sum(worker["memory"][key] for worker in workers),
        rss_bytes=sum(worker["memory"]["rss_bytes"] for worker in workers),
        tasks=None if None in tasks else sum(tasks),
        fds=sum(worker["process"]["fds"] for worker in workers),
    )


def _of_agents(answer: dict[str, Any]) -> list[dict[str, Any]]:
    # A shell that waits for its service is a worker in the overview, too: only workers with agents are read.
    return [worker for worker in answer["workers"] if worker["state"] != "outside"]


def _why_unknown(workers: list[dict[str, Any]]) -> str:
    """Why in-use bytes of an answering agent are unknown, as with an allocator that does not report them."""
    return next(
        (
            why
            for worker in workers
            if worker["state"] == "answering" and (why := (worker["memory"].get("unknown") or {}).get("in_use_bytes"))
        ),
        "",
    )
