"""The monitor beside a subject, as its user sees it: HTTP and JSON, nothing imported from the other side."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx2

from ...analysis.growth import Reading
from ...analysis.profile import Profile
from ...errors import ProtocolError, TargetError, TargetSilentError, UsageError
from .outside import family, is_python, read_from_outside

__all__ = ["Capture", "Grown", "Monitor"]

_SCHEMA = "highwater.memory/1"
_TIMEOUT_SECONDS = 10.0
# Rendering takes its time on a busy machine; a capture that takes longer than this is stuck.
_CAPTURE_SECONDS = 90.0
_POLL_SECONDS = 0.2
# Between the two looks at which objects grow.
_GROWN_SECONDS = 1.0
# Less than this is chance, or what the reading itself has loaded.
_LEAST_GROWN_BYTES = 4096
_LEAST_GROWN_SHARE = 0.02
_OURS = "highwater_diagnostics"


@dataclass(frozen=True, slots=True)
class Grown:
    """A type of objects that grew while streams were open: by how much, and the ways in which samples of it are held."""

    type: str
    bytes_delta: int
    count_delta: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Capture:
    """Who holds the memory of a service under load.

    profile, flamegraph   memray's: what was still held at the end of the capture, and its picture as HTML
    grown                 which objects grew meanwhile, and why they are alive; those that grew most first
    grown_unknown         why that is not known; empty where it is
    """

    profile: Profile
    flamegraph: bytes
    coverage_percent: float | None
    grown: tuple[Grown, ...] = ()
    grown_unknown: str = ""


class Monitor:
    """A client of one monitor. Whoever makes it closes it.

    pids      the subject's workers at the last reading
    outside   it has no agent (it is no Python process): its memory is read from outside, and in-use bytes are its RSS
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.pids: tuple[int, ...] = ()
        self.outside = False
        self._http = httpx2.AsyncClient(
            timeout=_TIMEOUT_SECONDS, headers={"accept": "application/json"}, trust_env=False
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def reading(self) -> Reading | None:
        """One look at the subject; None while a worker does not answer. Raises TargetError, ProtocolError."""
        before = time.monotonic()
        answer = await self._json("GET", self.url)
        self.pids = tuple(worker["process"]["pid"] for worker in answer["workers"])
        moment = (before + time.monotonic()) / 2
        return read_from_outside(self.pids, moment) if self.outside else _reading(answer, moment)

    async def first_reading(self, timeout_seconds: float) -> Reading:
        """Wait until the monitor has found the subject's agent and can tell its memory."""
        deadline = time.monotonic() + timeout_seconds
        while (reading := await self.reading()) is None:
            if self.pids and not any(is_python(pid) for pid in family(self.pids)):
                self.outside = True
                continue
            if time.monotonic() > deadline:
                raise TargetSilentError(
                    f"the monitor at {self.url} has no worker that tells its in-use bytes after {timeout_seconds:g} s",
                    remedy="the subject must be a Python service that the agent can be injected into",
                )
            await asyncio.sleep(_POLL_SECONDS)
        return reading

    async def balance(self) -> dict[str, int]:
        """Resident memory by its parts, summed over the workers; parts that nobody can tell are left out."""
        answer = await self._json("GET", self.url + "/balance")
        parts: Counter[str] = Counter()
        for worker in answer["workers"]:
            for part, size in ((worker["balance"] or {}).get("parts") or {}).items():
                if size is not None:
                    parts[part] += size
        return dict(parts)

    async def capture(self, seconds: float, window_over: Callable[[], None]) -> Capture:
        """Look which objects grow, then take a memray capture of `seconds`; call `window_over` once no load is needed."""
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
        return Capture(profile, flamegraph.content, coverage, grown, unknown)

    async def _grown(self) -> tuple[tuple[Grown, ...], str]:
        try:
            order = {"kind": "objects", "seconds": _GROWN_SECONDS, "paths": True}
            state, _ = await self._taken(order, lambda: None)
        except TargetError as error:
            # A service whose objects cannot be read has its profile all the same.
            return (), str(error)
        rows, paths = state["result"]["top"], state["result"]["paths"]
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
        """Take a capture and give its state and place. A slow service hurts nobody here: a busy one is traced all the same."""
        response = await self._send("POST", self.url + "/captures", json={**order, "force": True})
        place = urljoin(self.url, response.headers["location"])
        return await self._finished(place, time.monotonic() + order["seconds"] + _CAPTURE_SECONDS, window_over), place

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
            raise TargetError(f"the monitor answered {method} {url} with {response.status_code}: {response.text[:500]}")
        return response


def _reading(answer: dict[str, Any], moment: float) -> Reading | None:
    """The sum over the workers; None where there is none or one is silent. Raises ProtocolError for an unknown schema."""
    if answer.get("schema") != _SCHEMA:
        raise ProtocolError(f"the monitor speaks {answer.get('schema')!r}, this proof understands {_SCHEMA!r}")
    # A shell that waits for its service is shown, too; where a service has an agent, that is who tells.
    workers = [worker for worker in answer["workers"] if worker["state"] != "outside"]
    if not workers or any(
        worker["state"] != "answering" or worker["memory"]["in_use_bytes"] is None for worker in workers
    ):
        return None
    tasks = [worker["tasks"] for worker in workers]
    return Reading(
        time=moment,
        in_use_bytes=sum(worker["memory"]["in_use_bytes"] for worker in workers),
        rss_bytes=sum(worker["memory"]["rss_bytes"] for worker in workers),
        tasks=None if None in tasks else sum(tasks),
        fds=sum(worker["process"]["fds"] for worker in workers),
    )
