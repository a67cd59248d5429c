"""Keeps captures on disk: one folder each, published whole or not at all, never overwritten, and never filling the disk.

A capture is written in `.partial-<id>`; when it has ended its manifest is added and the folder is renamed to its id. Partial
folders of a killed monitor are removed when the next one starts.

Other programs may delete files of the store at any moment: a missing folder is created again, and a damaged capture is
reported as broken (manifest.py).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ....errors import NoRoomError, NotFoundError
from ....protocol import private_folder
from . import manifest as manifests

__all__ = ["Limits", "Store", "as_no_room"]

log = logging.getLogger("diagnostics.monitor")

_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9]{6}-[a-z]+")
_ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PARTIAL = ".partial-"
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the store; the oldest captures are deleted for new ones.

    free_bytes   bytes that must stay free on the disk: captures are refused before the service's own writes fail
    """

    captures: int = 100
    total_bytes: int = 2 * 1024**3
    age_seconds: float = 14 * _DAY
    free_bytes: int = 256 * 1024**2


class Store:
    """The folder `<root>/captures`."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.folder = root / "captures"
        private_folder(self.folder)
        self.limits = limits or Limits()
        self._kept: dict[str, tuple[str, int]] = {}  # id -> (worker, bytes of artifacts), read once
        for left in self.folder.glob(f"{_PARTIAL}*"):
            _remove(left)

    def new(self, kind: str, needed_bytes: int = 0) -> tuple[str, Path]:
        """A new id and the folder for its artifacts. Raises NoRoomError where `needed_bytes` do not fit, RefusedError."""
        private_folder(self.folder)
        self.tidy()
        free = shutil.disk_usage(self.folder).free
        if free < self.limits.free_bytes + needed_bytes:
            raise NoRoomError(
                f"{free} bytes are free at {self.folder}, this capture may need {needed_bytes}, and captures are kept from "
                f"using the last {self.limits.free_bytes}",
                remedy="free some space, or set DIAGNOSTICS_DIR to another disk",
            )
        capture_id = self.name(kind)
        folder = self.folder / (_PARTIAL + capture_id)
        with as_no_room(self.folder):
            folder.mkdir(mode=0o700)
        return capture_id, folder

    @staticmethod
    def name(kind: str) -> str:
        """A new id: UTC with microseconds, so that ids are unique and sort by time."""
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S-%f}-{kind}"

    def publish(self, capture_id: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Add the manifest with all artifacts' sizes and sha256, and rename the folder to the id.

        Returns the manifest as written.
        """
        folder = self.folder / (_PARTIAL + capture_id)
        with as_no_room(self.folder):
            artifacts = [_facts(path) for path in sorted(folder.iterdir())]
            whole = {**manifest, "artifacts": artifacts}
            with open(folder / manifests.NAME, "w", encoding="utf-8") as file:
                json.dump(whole, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            folder.rename(self.folder / capture_id)
        return whole

    def discard(self, capture_id: str) -> None:
        """Remove the partial folder of a capture."""
        shutil.rmtree(self.folder / (_PARTIAL + capture_id), ignore_errors=True)

    def empty(self, capture_id: str) -> None:
        """Remove the artifacts of a capture that filled the disk, so that its manifest can be written."""
        for path in _below(self.folder / (_PARTIAL + capture_id)):
            path.unlink(missing_ok=True)

    def manifests(self) -> list[dict[str, Any]]:
        """Manifests of all captures, newest first, broken ones included."""
        manifests = []
        for path in sorted(self._captures(), reverse=True):
            with contextlib.suppress(NotFoundError):  # deleted since
                manifests.append(self.manifest(path.name))
        return manifests

    def manifest(self, capture_id: str) -> dict[str, Any]:
        """The manifest of a capture. Raises NotFoundError."""
        try:
            return manifests.read(self._path(capture_id))
        except FileNotFoundError as error:
            raise _unknown(capture_id) from error

    def artifact(self, capture_id: str, name: str) -> Path:
        """The path of an artifact that the manifest lists. Raises NotFoundError for any other name."""
        manifest = self.manifest(capture_id)
        if manifest["state"] == "broken":
            raise NotFoundError(manifest["error"]["message"], remedy=manifest["error"]["remedy"])
        listed = [artifact["name"] for artifact in manifest["artifacts"]]
        if name not in listed or not _ARTIFACT.fullmatch(name):
            raise NotFoundError(f"capture {capture_id} has no artifact {name!r}", remedy=f"it has {', '.join(listed)}")
        return self._path(capture_id) / name

    def delete(self, capture_id: str) -> None:
        """Delete a capture. Raises NotFoundError."""
        path = self._path(capture_id)
        if not path.exists():
            raise _unknown(capture_id)
        _remove(path)

    def used_bytes(self) -> int:
        return sum(_size(path) for path in self._captures())

    def kept_bytes(self) -> dict[str, int]:
        """Bytes of all kept artifacts, by worker."""
        names = {path.name for path in self._captures()}
        for gone in self._kept.keys() - names:
            del self._kept[gone]
        for name in names - self._kept.keys():
            with contextlib.suppress(NotFoundError):
                manifest = self.manifest(name)
                held = sum(artifact["bytes"] for artifact in manifest["artifacts"])
                self._kept[name] = (str(manifest["worker"]), held)
        by_worker: dict[str, int] = {}
        for worker, held in self._kept.values():
            by_worker[worker] = by_worker.get(worker, 0) + held
        return by_worker

    def tidy(self) -> None:
        """Remove captures past their age, then the oldest until the limits hold."""
        oldest_first = sorted(self._captures())
        sizes = {path: _size(path) for path in oldest_first}
        total, now = sum(sizes.values()), time.time()
        kept = len(oldest_first)
        for path in oldest_first:
            overdue = now - _mtime(path, now) > self.limits.age_seconds
            if not overdue and total <= self.limits.total_bytes and kept < self.limits.captures:
                continue
            _remove(path)
            total -= sizes[path]
            kept -= 1

    def _captures(self) -> list[Path]:
        return [path for path in _below(self.folder) if _ID.fullmatch(path.name)]

    def _path(self, capture_id: str) -> Path:
        if not _ID.fullmatch(capture_id):
            raise _unknown(capture_id)
        return self.folder / capture_id


class as_no_room:  # noqa: N801  # used as a statement: with as_no_room(folder): ...
    """Turns a full disk or quota into NoRoomError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(
                f"the disk of {self._folder} is full", remedy="free some space, or set DIAGNOSTICS_DIR to another disk"
            ) from error


def _unknown(capture_id: str) -> NotFoundError:
    return NotFoundError(f"no capture {capture_id!r}", remedy="GET /debug/memory/captures lists them")


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _size(folder: Path) -> int:
    total = 0
    for path in _below(folder):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def _below(folder: Path) -> list[Path]:
    """The entries of a folder; empty where it does not exist, or is no folder."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _mtime(path: Path, otherwise: float) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return otherwise


def _remove(path: Path) -> None:
    """Remove a capture's folder, or a file in its place. A failure is logged, not raised."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # another program has deleted it
        return
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error)
