"""The manifest of one upload: what it is, of which service, worker and host, by which versions, and each file's SHA-256. Pure.

It is the capture's own manifest (kept/store.py) with the service and the host in front. In the store it is written last: a
folder there without a manifest is an upload that has not ended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ...errors import TargetError

__all__ = ["MAX_BYTES", "SCHEMA", "id_of_recording", "of_capture", "of_recording", "read", "written"]

SCHEMA: Final = "highwater.egress/1"
# As the manifests of the local store: the result of a capture of thousands of types is some hundred kilobytes.
MAX_BYTES: Final = 64 * 1024 * 1024


def of_capture(capture: Mapping[str, Any], service: str, host: str) -> dict[str, Any]:
    """The manifest for the store of a capture, given its local one."""
    return {"schema": SCHEMA, "what": "capture", "service": service, "host": host, **capture}


def id_of_recording(noticed: float) -> str:
    """The id of the recording of a worker whose end was noticed then (seconds since the epoch)."""
    return f"{datetime.fromtimestamp(noticed, UTC):%Y%m%dT%H%M%S-%f}-blackbox"


def of_recording(
    upload_id: str,
    end: Mapping[str, Any],
    artifacts: Sequence[Mapping[str, Any]],
    versions: Mapping[str, Any],
    service: str,
    host: str,
) -> dict[str, Any]:
    """The manifest of the recording of a worker that has ended; `end`: WorkerEnd.to_json, `artifacts`: name, bytes, sha256."""
    told = {key: end[key] for key in ("said", "oom", "returncode", "verdict")}
    return {
        "schema": SCHEMA,
        "what": "recording",
        "service": service,
        "host": host,
        "id": upload_id,
        "kind": "blackbox",
        "worker": end["worker"],
        "pid": end["pid"],
        "created": end["time"],
        "by": "the end of the worker",
        "versions": dict(versions),
        "state": "done",
        "end": told,
        "artifacts": [dict(artifact) for artifact in artifacts],
    }


def written(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1).encode("utf-8", "backslashreplace")


def read(data: bytes, upload_id: str) -> dict[str, Any]:
    """The manifest that a store has for `upload_id`. Raises TargetError where it is none, or another's."""
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TargetError(f"the manifest of {upload_id} is no JSON", remedy="see who else writes there") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise TargetError(f"the manifest of {upload_id} is not one of {SCHEMA}", remedy="update this command")
    if manifest.get("id") != upload_id:
        raise TargetError(f"the manifest of {upload_id} is that of another capture", remedy="see who else writes there")
    return manifest
