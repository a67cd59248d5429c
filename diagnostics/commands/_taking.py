"""Takes a capture: requests it, waits with a progress bar, and downloads its files."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import DiagnosticsError, TargetError
from ._asking import asked, checked, streamed
from ._landing import Landing, artifacts_of, id_of

__all__ = ["download", "take"]

_POLL_SECONDS = 0.2
# A shorter wait is not announced.
_WORTH_TELLING_SECONDS = 5.0
# How many running captures of other clients are waited for before this one fails as busy.
_MOST_WAITED_FOR = 3
_ENDED = ("done", "failed", "cancelled", "broken")


def take(
    client: httpx2.Client, options: dict[str, Any], console: Console, meanwhile: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Take one capture to its end and return its JSON, whether done or failed.

    `meanwhile` is called a few times a second. An interrupt cancels the capture. Where another capture runs (the verdict
    begins some automatically), it is waited for: one of the same kind is returned, after any other the request is repeated.
    """
    for _ in range(_MOST_WAITED_FOR):
        try:
            capture = asked(client, "POST", "/debug/memory/captures", json=options)
            break
        except DiagnosticsError as error:
            running = _running(client, options) if error.code == "busy" else None
            if running is None:
                raise
        console.print(escape(f"{running['id']} is being taken already; it is waited for"), soft_wrap=True)
        ended = _watched(client, f"/debug/memory/captures/{id_of(running)}", running, console, meanwhile)
        if ended["kind"] == options["kind"] and ended["state"] == "done":
            return ended
    else:
        capture = asked(client, "POST", "/debug/memory/captures", json=options)
    for line in _notices(capture.get("estimate", {})):
        console.print(escape(line), soft_wrap=True)
    location = f"/debug/memory/captures/{id_of(capture)}"
    try:
        return _watched(client, location, capture, console, meanwhile)
    except KeyboardInterrupt:
        checked(client, "DELETE", location)
        raise


def _running(client: httpx2.Client, options: dict[str, Any]) -> dict[str, Any] | None:
    """The running capture that blocks this request; None where there is none, or the request is for all workers."""
    if options.get("worker") == "all":
        return None
    captures: list[dict[str, Any]] = asked(client, "GET", "/debug/memory/captures")["captures"]
    running = [each for each in captures if each["state"] not in _ENDED]
    return next((each for each in running if options.get("worker") in (None, each["worker"])), None)


def _notices(estimate: dict[str, Any]) -> Iterator[str]:
    """Lines to print while a capture runs: its warning, and a long reading's duration."""
    if estimate.get("warning"):
        yield str(estimate["warning"])
    if estimate.get("reading_seconds", 0) >= _WORTH_TELLING_SECONDS:
        yield f"a forked child reads for about {estimate['reading_seconds']:.0f} s; the service goes on meanwhile"


def download(client: httpx2.Client, capture: dict[str, Any], folder: Path) -> list[Path]:
    """Download all artifacts of a finished capture into `folder`. Raises TargetError for malformed answers."""
    location = f"/debug/memory/captures/{id_of(capture)}/artifacts"
    landing = Landing(folder)
    return [
        _downloaded(client, f"{location}/{artifact['name']}", artifact, landing) for artifact in artifacts_of(capture)
    ]


def _watched(
    client: httpx2.Client,
    location: str,
    capture: dict[str, Any],
    console: Console,
    meanwhile: Callable[[], object],
) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        of = "all workers" if capture["worker"] == "all" else f"worker {capture['worker']} (pid {capture['pid']})"
        bar = progress.add_task(f"{capture['kind']} of {of}", total=1.0, state=capture["state"])
        while capture["state"] not in _ENDED:
            time.sleep(_POLL_SECONDS)
            capture = asked(client, "GET", location)
            meanwhile()
            progress.update(bar, completed=capture["progress"], state=capture["state"])
    return capture


def _downloaded(client: httpx2.Client, path: str, artifact: dict[str, Any], landing: Landing) -> Path:
    """Download one artifact: the file gets its name only once its size and its sha256 are right."""
    name: str = artifact["name"]
    left: int = artifact["bytes"]
    digest = hashlib.sha256()
    with streamed(client, "GET", path) as response, landing.file(name) as file:
        for chunk in response.iter_raw():
            left -= len(chunk)
            if left < 0:
                raise TargetError(f"{name} is larger than the {artifact['bytes']} bytes that the monitor announced")
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != artifact["sha256"]:
            raise TargetError(f"{name} arrived damaged", remedy="download it again")
    return landing.folder / name
