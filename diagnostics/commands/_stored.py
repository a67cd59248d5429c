"""Reads artifacts back from an object store: what is there, one capture, one artifact. Nothing is kept that its sum denies.

Whoever may write to the bucket may be hostile: a folder counts only where its name is the id of a capture, names and sizes come
from a manifest that is checked like a monitor's answer (`_landing.py`), and a file gets its name once its size and its SHA-256
are those of the manifest. That guards against damage and against paths, not against somebody who writes both.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import NotFoundError, TargetError, UsageError
from ..monitor.egress import manifest as manifests
from ..monitor.egress.destination import ARTIFACT, ID, MANIFEST, Destination, is_path
from ._landing import Landing, artifacts_of

if TYPE_CHECKING:
    from ..monitor.egress.store import ObjectStore

__all__ = ["Found", "Source", "at_hand", "capture", "captures_below", "fetch", "source"]

# What a command reads: a file here, or the address of one in a store.
Source = Path | Destination

_TIMEOUT_SECONDS: Final = 30.0
# Objects that are looked at below a prefix: those of some ten thousand captures.
_MOST_OBJECTS: Final = 100_000
_STORE: Final = "the store"
# The artifact that a command means who names only the capture, by the ending of the name.
_USUAL: Final = ("profile.json", ".ring")


@dataclass(frozen=True, slots=True)
class Found:
    """A whole capture in a store: its address, how many files it has, and their bytes together."""

    place: Destination
    files: int
    bytes: int


def source(text: str) -> Source:
    """A command's argument: a path, or an address with `://`. Raises UsageError."""
    return Destination.parse(text, "FILE") if "://" in text else Path(text)


def captures_below(place: Destination) -> list[Found]:
    """All captures at or below a place, newest first. Raises StoreError, UsageError; NotFoundError where there is none."""
    sizes: dict[str, list[int]] = {}
    whole: set[str] = set()
    above, below = (place.parent, place.name) if ID.fullmatch(place.name) else (place, "")
    objects = _reader(above).list(below, _MOST_OBJECTS)
    if len(objects) == _MOST_OBJECTS:
        raise UsageError(
            f"{place.url} has {_MOST_OBJECTS} objects or more", remedy="name a service and a host of it, too"
        )
    for stored in objects:
        folder, _, name = stored.path.rpartition("/")
        if ID.fullmatch(folder.rpartition("/")[2]) and is_path(folder) and ARTIFACT.fullmatch(name):
            sizes.setdefault(folder, []).append(stored.bytes)
            if name == MANIFEST:
                whole.add(folder)
    if not whole:
        raise NotFoundError(
            f"no capture is at {place.url}",
            remedy="a capture is there once its manifest.json is: ask again, or look above",
        )
    newest = sorted(whole, key=lambda folder: folder.rpartition("/")[2], reverse=True)
    return [Found(above.below(folder), len(sizes[folder]), sum(sizes[folder])) for folder in newest]


def capture(place: Destination) -> dict[str, Any]:
    """The manifest of the capture at `place`. Raises NotFoundError, StoreError, TargetError."""
    return _manifest(_reader(place), place)


def fetch(place: Destination, folder: Path, only: str | None = None) -> list[Path]:
    """Write the artifacts of a capture, and its manifest, into `folder`; with `only` that artifact alone.

    Raises NotFoundError, StoreError, and TargetError where something there is not what the manifest says.
    """
    reader, landing = _reader(place), Landing(folder)
    manifest = _manifest(reader, place)
    artifacts = artifacts_of(manifest, _STORE)
    chosen = [artifact for artifact in artifacts if only in (None, artifact["name"])]
    if only not in (None, MANIFEST) and not chosen:
        raise _no_artifact(place, str(only), artifacts)
    paths = [_fetched(reader, artifact, landing) for artifact in chosen]
    if only in (None, MANIFEST):
        with landing.file(MANIFEST) as file:
            file.write(manifests.written(manifest))
        paths.append(folder / MANIFEST)
    return paths


@contextmanager
def at_hand(given: Source, *, whole: bool = False) -> Iterator[Path]:
    """The file as a path: itself, or a copy from the store for as long as the block lasts.

    An address of a capture means its profile, or its recording. whole: the other files of the capture are beside it.
    """
    if isinstance(given, Path):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="highwater-fetched-") as folder:
        place, name = _capture_and_name(given)
        if name is None:
            artifacts = artifacts_of(capture(place), _STORE)
            names = [str(artifact["name"]) for artifact in artifacts]
            name = next((each for usual in _USUAL for each in names if each.endswith(usual)), None)
            if name is None:
                raise _no_artifact(place, "profile.json", artifacts)
        fetch(place, Path(folder), None if whole else name)
        if not (Path(folder) / name).exists():
            raise _no_artifact(place, name, [])
        yield Path(folder) / name


def _capture_and_name(given: Destination) -> tuple[Destination, str | None]:
    if ID.fullmatch(given.name):
        return given, None
    if ID.fullmatch(given.parent.name) and ARTIFACT.fullmatch(given.name):
        return given.parent, given.name
    raise UsageError(
        f"{given.url} is neither a capture nor an artifact of one", remedy=f"diagnostics fetch --list {given.url}"
    )


def _reader(place: Destination) -> ObjectStore:
    from ..monitor.egress.store import ObjectStore  # brings asyncio, which no command needs for a file

    return ObjectStore(place, _TIMEOUT_SECONDS, writes=False)


def _manifest(reader: ObjectStore, place: Destination) -> dict[str, Any]:
    content = b"".join(_at_most(reader.get(MANIFEST), manifests.MAX_BYTES, MANIFEST))
    return manifests.read(content, place.name)


def _fetched(reader: ObjectStore, artifact: dict[str, Any], landing: Landing) -> Path:
    name: str = artifact["name"]
    digest, count = hashlib.sha256(), 0
    with landing.file(name) as file:
        for piece in _at_most(reader.get(name), artifact["bytes"], name):
            digest.update(piece)
            count += len(piece)
            file.write(piece)
        if count != artifact["bytes"] or digest.hexdigest() != artifact["sha256"]:
            raise TargetError(
                f"{reader.destination.below(name).url} is not what its manifest says: it was changed or damaged",
                remedy="it was not written; the monitor's own folder may still have it",
            )
    return landing.folder / name


def _at_most(pieces: Iterable[bytes], limit: int, name: str) -> Iterator[bytes]:
    left = limit
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise TargetError(f"{name} in the store is larger than {limit} bytes", remedy="see who else writes there")
        yield piece


def _no_artifact(place: Destination, name: str, artifacts: list[dict[str, Any]]) -> NotFoundError:
    there = ", ".join(artifact["name"] for artifact in artifacts) or "none"
    return NotFoundError(f"{place.url} has no artifact {name!r}", remedy=f"it has {there}")
