"""`diagnostics capture URL --kind bundle`: the evidence of an incident, in one folder and one .tar.gz.

    status.json       the monitor's overviews of the service, from before the first capture to after the last one
    metrics.txt       its metrics, once
    <kind>/...        the captures' files
    report.html, report.md, SHA256SUMS

One capture after the other, the cheap ones first: each slows the service for a while, and two at once would distort both. A
failed one (a kind that the service does not support) is reported, and the others are taken all the same.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import tarfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from ..analysis.profile import Profile
from ..errors import DiagnosticsError, UsageError
from ..proof.report.incident.bundle import Bundle, from_bundle
from ..proof.report.incident.folder import write
from ._asking import asked, checked
from ._taking import download, take

__all__ = ["KINDS", "collect"]

# Cheap and harmless kinds first: they are complete if a later one makes the service fail.
KINDS = ("tasks", "retained", "objects", "tracemalloc", "memray")
# Options that only some kinds have.
_OPTIONS = {"seconds": ("objects", "tracemalloc", "memray"), "frames": ("tracemalloc",)}
# memray, which alone sees what C allocates, is not in every service, and costs more than many can bear: where it is refused the
# report says why, and it is no failure.
_IF_IT_CAN = ("memray",)
_PROFILE = "profile.json"


def collect(client: httpx2.Client, options: dict[str, Any], output: Path, console: Console) -> int:
    """Collect everything into a new folder below `output`. Returns the exit code: 0, or 1 where a capture failed."""
    bundle = Bundle(str(client.base_url).rstrip("/"))
    folder = output / datetime.now(UTC).strftime("bundle-%Y%m%dT%H%M%SZ")

    def look() -> None:
        bundle.states.append(
            (time.time(), asked(client, "GET", "/debug/memory", headers={"accept": "application/json"}))
        )

    look()
    metrics = checked(client, "GET", "/metrics").content
    # Created only once there is something to write.
    _made_anew(folder)
    (folder / "metrics.txt").write_bytes(metrics)
    for kind in KINDS:
        mine = {
            name: value
            for name, value in options.items()
            if name in ("worker", "force") or kind in _OPTIONS.get(name, ())
        }
        try:
            capture = take(client, {**mine, "kind": kind}, console, look)
        except DiagnosticsError as error:
            if error.code == "refused":  # no token, or a wrong one: all further requests would be refused, too
                raise
            capture = {"state": "refused", "error": error.to_dict()}
        bundle.captures[kind] = capture
        if capture["state"] == "done":
            download(client, capture, folder / kind)
            profile = folder / kind / _PROFILE
            if profile.exists():
                bundle.profiles[kind] = Profile.from_json(json.loads(profile.read_bytes()))
    look()
    (folder / "status.json").write_text(
        json.dumps([{"time": moment, **state} for moment, state in bundle.states], indent=1) + "\n",
        encoding="utf-8",
    )
    write(from_bundle(bundle, shlex.join(["diagnostics", "capture", bundle.url, "--kind", "bundle"])), folder)
    packed = _packed(folder)
    print(folder / "report.html")
    print(packed)
    missing = [kind for kind, capture in bundle.captures.items() if _failed(kind, capture)]
    if missing:
        console.print(f"not captured: {', '.join(missing)}; the report says why", highlight=False)
    return 1 if missing else 0


def _failed(kind: str, capture: Mapping[str, Any]) -> bool:
    return capture["state"] != "done" and not (kind in _IF_IT_CAN and capture["state"] == "refused")


def _made_anew(folder: Path) -> None:
    """Create the folder. Raises UsageError where it exists: another user's folder could be a link to anywhere."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}", remedy="choose another place with -o") from error


def _packed(folder: Path) -> Path:
    """Write SHA256SUMS (for `sha256sum -c`) and pack the folder; returns the path of the .tar.gz beside it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    packed = folder.with_name(folder.name + ".tar.gz")
    with tarfile.open(packed, "x:gz") as archive:
        archive.add(folder, folder.name)
    return packed
