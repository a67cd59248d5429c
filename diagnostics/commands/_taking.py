"""A capture from the request to the files: asked for, watched with a progress bar, and downloaded whole."""

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

from ..errors import TargetError
from ._asking import asked, checked, streamed
from ._landing import Landing, artifacts_of, id_of

__all__ = ["download", "take"]

_POLL_SECONDS = 0.2
# A shorter wait explains itself.
_WORTH_TELLING_SECONDS = 5.0
_ENDED = ("done", "failed", "cancelled", "broken")


def take(
    client: httpx2.Client, options: dict[str, Any], console: Console, meanwhile: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Take one capture to its end and return it as the monitor tells it, whether done or failed.

    `meanwhile` is called a few times a second. Interrupted, it cancels the capture.
    """
    capture = asked(client, "POST", "/debug/memory/captures", json=options)
    for line in _told_before(capture.get("estimate", {})):
        console.print(escape(line), soft_wrap=True)
    location = f"/debug/memory/captures/{id_of(capture)}"
    try:
        return _watched(client, location, capture, console, meanwhile)
    except KeyboardInterrupt:
        checked(client, "DELETE", location)
        raise


def _told_before(estimate: dict[str, Any]) -> Iterator[str]:
    """What whoever waits should know of a capture that has begun."""
    if estimate.get("warning"):
        yield str(estimate["warning"])
    if estimate.get("reading_seconds", 0) >= _WORTH_TELLING_SECONDS:
        yield f"a forked child reads for about {estimate['reading_seconds']:.0f} s; the service goes on meanwhile"


def download(client: httpx2.Client, capture: dict[str, Any], folder: Path) -> list[Path]:
    """Put all artifacts of a finished capture into `folder`. Raises TargetError for what no monitor of ours sends."""
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
    """Download one artifact whole: it gets its name only once its size and its sha256 are right."""
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
