"""What an upload consists of: its files on this disk, and its manifest. Reads and hashes files, so it is called in a thread."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import NotFoundError, UsageError
from ..captures.kept.store import Store
from ..recording import live_heap
from ..recording.line_record import lines_file
from ..recording.ring import peek
from . import manifest as manifests
from .destination import ARTIFACT
from .queue import Upload

__all__ = ["Collector", "UploadFile", "recorded"]


@dataclass(frozen=True, slots=True)
class UploadFile:
    """A file to be sent, its name in the store, and its bytes."""

    name: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class Collector:
    """Collects uploads of this service and host; `store` has the captures."""

    store: Store
    service: str
    host: str

    def of(self, upload: Upload) -> tuple[dict[str, Any], list[UploadFile]]:
        """The manifest and the files of an upload. Raises NotFoundError, FileNotFoundError where they are gone or damaged."""
        return self._capture(upload) if upload.what == "capture" else self._recording(upload)

    def _capture(self, upload: Upload) -> tuple[dict[str, Any], list[UploadFile]]:
        capture = self.store.manifest(upload.id)
        files = [
            UploadFile(artifact["name"], self.store.artifact(upload.id, artifact["name"]), artifact["bytes"])
            for artifact in capture["artifacts"]
        ]
        return manifests.of_capture(capture, self.service, self.host), files

    def _recording(self, upload: Upload) -> tuple[dict[str, Any], list[UploadFile]]:
        assert upload.end is not None
        paths = [Path(path) for path in upload.paths]
        artifacts = [_facts(path) for path in paths]
        files = [UploadFile(facts["name"], path, facts["bytes"]) for facts, path in zip(artifacts, paths, strict=True)]
        versions = {"highwater": __version__}
        return manifests.of_recording(upload.id, upload.end, artifacts, versions, self.service, self.host), files


def recorded(recording: Path) -> tuple[list[str], int]:
    """The paths of a recording, of what was recorded of its worker's lines, and of its live heap; and their bytes."""
    paths = [recording, lines_file(recording)]
    with contextlib.suppress(UsageError, OSError):  # damaged: it is sent as it is
        ticks = peek(recording)[0].process.get("start_ticks")
        found = live_heap.of_recording(recording, ticks) if isinstance(ticks, int) else None
        paths += [found[0]] if found is not None else []
    there = [path for path in paths if path.is_file()]
    return [str(path) for path in there], sum(path.stat().st_size for path in there)


def _facts(path: Path) -> dict[str, Any]:
    """Name, bytes and SHA-256. Raises NotFoundError where the name is not one of ours, OSError."""
    if not ARTIFACT.fullmatch(path.name):
        raise NotFoundError(f"{path} is no recording of ours")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}
