"""Reads a kept capture's manifest, or says why it is broken.

A folder in the store may be truncated, emptied by a cleaner, or written by another version. Such a folder affects no other
capture: its own is listed in the state `broken`, with the reason, and can be deleted.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["NAME", "read"]

NAME = "manifest.json"
# The result of a capture of thousands of types is some hundred kilobytes.
_MAX_BYTES = 64 * 1024 * 1024
# The keys and types that every reader of a manifest relies on.
_SHAPE: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "kind": (str,),
    "worker": (str,),
    "pid": (int,),
    "created": (int, float),
    "state": (str,),
    "progress": (int, float),
    "options": (dict,),
    "error": (dict, type(None)),
    "result": (dict, type(None)),
    "artifacts": (list,),
}
_ARTIFACT: dict[str, type] = {"name": str, "bytes": int, "sha256": str}


def read(folder: Path) -> dict[str, Any]:
    """The manifest in a capture's folder, or one of state `broken`. Raises FileNotFoundError where there is no folder."""
    try:
        manifest = _loaded(folder / NAME)
        problem = _problem(manifest, folder)
    except FileNotFoundError:
        if not folder.is_dir():
            raise
        problem = f"it has no {NAME}"
    except (OSError, ValueError, RecursionError) as error:
        problem = f"its {NAME} cannot be read: {error}"
    return manifest if problem is None else _broken(folder, problem)


def _loaded(path: Path) -> Any:
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size} bytes, the limit is {_MAX_BYTES}")
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _problem(manifest: Any, folder: Path) -> str | None:
    if not isinstance(manifest, dict):
        return f"its {NAME} is a JSON {type(manifest).__name__}"
    for key, allowed in _SHAPE.items():
        if key not in manifest or not isinstance(manifest[key], allowed):
            return f"its {NAME} has no {key!r} as this version writes it"
    if manifest["id"] != folder.name:
        return f"its {NAME} is that of {manifest['id']!r:.60}"
    for artifact in manifest["artifacts"]:
        if not isinstance(artifact, dict) or not all(
            isinstance(artifact.get(key), of) for key, of in _ARTIFACT.items()
        ):
            return f"its {NAME} lists {artifact!r:.60} as an artifact"
        if not (folder / Path(artifact["name"]).name).is_file():
            return f"its artifact {artifact['name']!r:.60} is gone"
    return None


def _broken(folder: Path, problem: str) -> dict[str, Any]:
    stamp, _, kind = folder.name.rpartition("-")
    try:
        created = datetime.strptime(stamp, "%Y%m%dT%H%M%S-%f").replace(tzinfo=UTC).timestamp()
    except ValueError:  # the id has the right shape, but no valid time (a month of 99)
        created = 0.0
    return {
        "id": folder.name,
        "kind": kind,
        "worker": None,
        "workers": [],
        "pid": None,
        "created": created,
        "options": {},
        "state": "broken",
        "progress": 1.0,
        "error": {
            "code": "broken",
            "message": f"the capture is broken: {problem}",
            "remedy": "delete it, and take another",
        },
        "result": None,
        "artifacts": [],
    }
