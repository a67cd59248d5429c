"""Writes the files of a monitor, or of an object store, to disk: below the folder that the user named, and nowhere else.

Either may be hostile: an id or a file name from it is accepted only in the form that our own monitors use, the folder is
opened without following a link, and no file is written through one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import TargetError, UsageError

__all__ = ["MAX_ARTIFACTS", "MAX_ARTIFACT_BYTES", "Landing", "artifacts_of", "id_of", "worker_of"]

# Limit of one artifact: by default a store keeps 2 GiB of all captures together.
MAX_ARTIFACT_BYTES = 16 * 1024**3
MAX_ARTIFACTS = 100
MONITOR = "the monitor"

_ID = re.compile(r"(?:all-)?[0-9]{8}T[0-9]{6}-[0-9]{6}-[a-z]{1,20}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_WORKER = re.compile(r"[0-9]{1,9}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def id_of(capture: Any) -> str:
    """A capture's id, checked. Raises TargetError."""
    return _shaped(_ID, _field(capture, "id"), "capture's id")


def worker_of(capture: Any) -> str:
    """The number of a capture's worker, checked. Raises TargetError."""
    return _shaped(_WORKER, _field(capture, "worker"), "worker's number")


def artifacts_of(capture: Any, source: str = MONITOR) -> list[dict[str, Any]]:
    """A finished capture's artifacts (name, bytes, sha256), checked; `source` is named in errors. Raises TargetError."""
    listed = _field(capture, "artifacts", source)
    if not isinstance(listed, list) or len(listed) > MAX_ARTIFACTS:
        shown = f"{len(listed)} of them" if isinstance(listed, list) else listed
        raise _not_one("list of artifacts", shown, source)
    artifacts = []
    for artifact in listed:
        size = _field(artifact, "bytes", source)
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_ARTIFACT_BYTES:
            raise _not_one("artifact's size", size, source)
        name = _shaped(_NAME, _field(artifact, "name", source), "artifact's name", source)
        if name.endswith(_PARTIAL):
            raise _not_one("artifact's name", name, source)
        digest = _shaped(_SHA256, _field(artifact, "sha256", source), "artifact's SHA-256", source)
        artifacts.append({"name": name, "bytes": size, "sha256": digest})
    return artifacts


class Landing:
    """A folder for downloaded files, created where it does not exist. It is never a link; its parents are the user's choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """Write the file `name` atomically: it gets its name once the block ends without an exception. Raises UsageError."""
        if not _NAME.fullmatch(name):
            raise _not_one("artifact's name", name)
        folder = self._entered()
        try:
            partial = name + _PARTIAL
            _removed(partial, folder)  # of an earlier attempt, or a link that another user made: never written through
            try:
                with os.fdopen(os.open(partial, _NEW, 0o666, dir_fd=folder), "wb") as file:
                    yield file
                os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _removed(partial, folder)
                raise
        except OSError as error:
            where = self.folder / name
            raise UsageError(
                f"cannot write {where}: {error.strerror}", remedy="choose another place with -o"
            ) from error
        finally:
            os.close(folder)

    def _entered(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder, _FOLDER)
        except OSError as error:
            said = "is a link" if self.folder.is_symlink() else error.strerror
            raise UsageError(f"{self.folder}: {said}", remedy="choose another place with -o") from error


def _removed(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _field(answer: Any, name: str, source: str = MONITOR) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise TargetError(f"{source}'s answer has no {name!r}", remedy="is it a monitor, and of this version?")
    return answer[name]


def _shaped(shape: re.Pattern[str], value: Any, what: str, source: str = MONITOR) -> str:
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise _not_one(what, value, source)
    return value


def _not_one(what: str, value: Any, source: str = MONITOR) -> TargetError:
    return TargetError(
        f"{source} sent {value!r:.120} as {what}; nothing was written",
        remedy="no monitor of this project does: ask whoever runs it, and trust nothing that it says",
    )
