"""What fuzzing starts from: small inputs that each reader accepts, and those in tests/fuzz/corpora/READER."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from diagnostics.analysis.formats import collapsed, native, pprof
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.monitor.recording.ring import Header, RingFile, RingSize
from diagnostics.protocol import frame, request

__all__ = ["CORPORA", "seeds"]

CORPORA = Path(__file__).parent / "corpora"

_PROFILE = Profile(
    kind="memray",
    sample_types=(ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count")),
    samples=(
        Sample((Frame("leaf", "/srv/app.py", 3), Frame("main", "/srv/app.py", 9)), (4096, 1), (("route", "/s"),)),
    ),
    time=1.79e9,
    duration=5.0,
    not_covered=("what was allocated before",),
    meta={"coverage_percent": 99.5},
)
_RULES = b'[[rule]]\nname = "a"\ntrigger = "cgroup_share"\nabove = 0.5\ncapture = "tasks"\noptions = {fork = false}\n'
_ID = "20261128T140307-512000-memray"
_MANIFEST = {
    "id": _ID, "kind": "memray", "worker": "0", "pid": 1, "created": 1.8e9, "state": "done", "progress": 1.0, "options": {},
    "error": None, "result": None, "artifacts": [{"name": "profile.json", "bytes": 1, "sha256": "0" * 64}],
}  # fmt: skip


def seeds(name: str) -> list[bytes]:
    """Of one reader; never empty."""
    kept = [path.read_bytes() for path in sorted((CORPORA / name).glob("*"))]
    return [*_made(name), *kept]


def _made(name: str) -> list[bytes]:
    told = json.dumps(_MANIFEST).encode()
    plain = pprof.encode(_PROFILE, compress=False)
    return {
        "profile": [pprof.encode(_PROFILE), plain, native.encode(_PROFILE), collapsed.encode(_PROFILE)],
        "rules": [_RULES],
        "recording": [_recording()],
        "manifest": [told],
        "capture": [told],
        "upload": [json.dumps({"schema": "highwater.egress/1", **_MANIFEST}).encode()],
        "address": [b"s3://evidence/prod/a=b", b"file:///var/a%20b", b"az://container:80/x?sig=y#z", b"gs://k:s@bucket/.."],
        "options": [
            b'{"kind": "memray", "seconds": 5, "view": "leaked", "native": false, "diff": "a"}',
            b'{"kind": "tracemalloc", "seconds": 0.5, "frames": 5, "max_lag_ms": 100}',
            b'{"kind": "objects", "seconds": 0, "paths": true}',
        ],
        "message": [frame(request("reading", top=5))],
        "head": [b"localhost:6060", b"[::1]:1", b"http://localhost:6060", b"Bearer abc", b"Basic YTpi", b"highwater=9.a"],
        "names": [b"Task-17 of sk_live_abcdefgh", b"/users/anna@example.com/4eC39HqLyjWDarjt"],
    }[name]  # fmt: skip


def _recording() -> bytes:
    header = Header((("time", "s"), ("rss_bytes", "bytes")), (RingSize(1.0, 4),), {"worker": "0", "pid": 1})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ring"
        file = RingFile.create(path, header)
        for number in range(6):
            file.append(0, (1.79e9 + number, 1000.0 * number))
        file.write_end({"said": "It ended."})
        file.close()
        return path.read_bytes()
