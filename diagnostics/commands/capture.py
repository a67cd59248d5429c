"""`diagnostics capture URL`: take a capture of a running service, with a progress bar, and download its artifacts."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import DiagnosticsError, TargetError, UsageError
from ..monitor.kinds import KINDS

__all__ = ["checked", "configure", "download", "run", "take"]

_POLL_SECONDS = 0.2
_ENDED = ("done", "failed", "cancelled")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the monitor's address, for example http://127.0.0.1:6060")
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}, bundle (several)")
    parser.add_argument("--seconds", type=float, help="length of the window (default 5); objects: 0 is one census")
    parser.add_argument("--frames", type=int, help="tracemalloc: frames a stack, 1 to 25 (default 5)")
    parser.add_argument("--native", action="store_true", help="memray: native stacks too")
    parser.add_argument("--force", action="store_true", help="even if the service would not keep up meanwhile")
    parser.add_argument("--worker", help="which worker, where there are several (default: the first)")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to put the artifacts")


def run(arguments: argparse.Namespace) -> int:
    base = _base(arguments.url)
    options: dict[str, Any] = {"kind": arguments.kind}
    for name in ("seconds", "frames", "worker"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    if arguments.native:
        options["native"] = True
    if arguments.force:
        options["force"] = True
    token = os.environ.get("DIAGNOSTICS_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    console = Console(stderr=True)
    with httpx2.Client(base_url=base, headers=headers, timeout=30.0, trust_env=False) as client:
        if arguments.kind == "bundle":
            from . import _bundle

            return _bundle.collect(client, options, arguments.output, console)
        capture = take(client, options, console)
        if capture["state"] != "done":
            error = capture.get("error") or {"message": f"the capture was {capture['state']}"}
            raise TargetError(f"capture {capture['id']}: {error['message']}", remedy=error.get("remedy", ""))
        for path in download(client, capture, arguments.output / capture["id"]):
            print(path)
    _show(capture, console)
    return 0


def take(
    client: httpx2.Client, options: dict[str, Any], console: Console, meanwhile: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Take one capture to its end and return it as the monitor tells it, whether done or failed.

    `meanwhile` is called a few times a second. Interrupted, it cancels the capture.
    """
    capture = checked(client, "POST", "/debug/memory/captures", json=options).json()
    location = f"/debug/memory/captures/{capture['id']}"
    try:
        return _watched(client, location, capture, console, meanwhile)
    except KeyboardInterrupt:
        checked(client, "DELETE", location)
        raise


def download(client: httpx2.Client, capture: dict[str, Any], folder: Path) -> list[Path]:
    """Put all artifacts of a finished capture into `folder`."""
    location = f"/debug/memory/captures/{capture['id']}/artifacts"
    return [
        _downloaded(client, f"{location}/{artifact['name']}", artifact, folder) for artifact in capture["artifacts"]
    ]


def _base(url: str) -> str:
    """The monitor's root, from any of its addresses."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is not a monitor's address", remedy="write http://127.0.0.1:6060")
    return f"{parts.scheme}://{parts.netloc}"


def checked(client: httpx2.Client, method: str, path: str, **options: Any) -> httpx2.Response:
    """The monitor's answer, if it is a good one. Raises TargetError where none comes, its own refusal otherwise."""
    try:
        response = client.request(method, path, **options)
    except httpx2.TransportError as error:
        raise TargetError(
            f"no monitor answers at {client.base_url}: {error}", remedy="start the service with `diagnostics run`"
        ) from error
    if response.is_success:
        return response
    try:
        told = response.json()["error"]
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(f"{client.base_url} answered {response.status_code}, and is no monitor") from error
    raise _RefusalError(response.status_code, told)


class _RefusalError(DiagnosticsError):
    """The monitor said no; its words, and the exit code that its status means."""

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        super().__init__(told.get("message", ""), remedy=told.get("remedy", ""), code=told.get("code"))
        self.exit_code = {404: 2, 422: 2, 401: 2, 403: 2, 409: 1, 503: 1, 507: 1}.get(status, 3)  # type: ignore[misc]


def _watched(
    client: httpx2.Client,
    location: str,
    capture: dict[str, Any],
    console: Console,
    meanwhile: Callable[[], object],
) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(f"{capture['kind']} of worker {capture['worker']}", total=1.0, state=capture["state"])
        while capture["state"] not in _ENDED:
            time.sleep(_POLL_SECONDS)
            capture = checked(client, "GET", location).json()
            meanwhile()
            progress.update(bar, completed=capture["progress"], state=capture["state"])
    return capture


def _downloaded(client: httpx2.Client, path: str, artifact: dict[str, Any], folder: Path) -> Path:
    """Download one artifact whole: it gets its name only once its sha256 is right."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(artifact["name"]).name
    partial = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    with client.stream("GET", path) as response, open(partial, "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != artifact["sha256"]:
        partial.unlink()
        raise TargetError(f"{artifact['name']} arrived damaged", remedy="download it again")
    partial.replace(target)
    return target


def _show(capture: dict[str, Any], console: Console) -> None:
    kind, result = KINDS[capture["kind"]], capture["result"]
    table = Table(title=f"{kind.name}: {kind.headline(result)}")
    for column in kind.columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in result["top"]:
        table.add_row(*(escape(column.show(row)) for column in kind.columns))
    console.print(table)
    for note in kind.notes(result):
        console.print(escape(note), soft_wrap=True)
    if result.get("coverage_percent") is not None:
        console.print(f"stack coverage: {result['coverage_percent']:.1f} % of bytes")
    for note in result["not_covered"]:
        console.print(f"not covered: {escape(note)}")
    sys.stderr.flush()
