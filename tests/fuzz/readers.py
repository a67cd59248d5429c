"""Every reader of what a peer or a stranger wrote, as a function of bytes. Whatever the bytes are it returns, or raises what a
user is told (DiagnosticsError); anything else is a defect."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostics.agent.redaction import hidden_shapes, shown_path
from diagnostics.analysis.formats import decode
from diagnostics.commands._landing import artifacts_of, id_of, worker_of
from diagnostics.errors import DiagnosticsError
from diagnostics.monitor.captures.kept import manifest
from diagnostics.monitor.captures.kinds import kind_named
from diagnostics.monitor.egress import manifest as egress_manifest
from diagnostics.monitor.egress.destination import Destination
from diagnostics.monitor.recording import ring, timeline
from diagnostics.monitor.rules import rule_file
from diagnostics.monitor.web import access, session
from diagnostics.protocol import read_frame

__all__ = ["READERS"]


def _profile(data: bytes) -> None:
    profile = decode(data)
    json.dumps(profile.to_json())


def _rules(data: bytes) -> None:
    rule_file.parse(data.decode("utf-8", "replace"))


def _recording(data: bytes) -> None:
    recording = ring.decode(data)
    timeline.to_csv(recording)
    json.dumps(timeline.to_json(recording))


_ROOT = tempfile.TemporaryDirectory(prefix="highwater-fuzz-")


def _manifest(data: bytes) -> None:
    folder = Path(_ROOT.name) / "20261128T140307-512000-memray"
    folder.mkdir(exist_ok=True)
    (folder / manifest.NAME).write_bytes(data)
    told = manifest.read(folder)
    assert told["state"] == "broken" or told["id"] == folder.name


def _capture(data: bytes) -> None:
    try:
        told: Any = json.loads(data)
    except (ValueError, RecursionError):
        return
    for check in (id_of, worker_of, artifacts_of):
        with contextlib.suppress(DiagnosticsError):
            check(told)


def _upload(data: bytes) -> None:
    """What `diagnostics fetch` checks of a manifest in a store, and of an address."""
    artifacts_of(egress_manifest.read(data, "20261128T140307-512000-memray"), "the store")


def _address(data: bytes) -> None:
    place = Destination.parse(data.decode("utf-8", "replace"), "URL")
    assert not {".", ".."} & set(place.prefix.split("/"))


def _options(data: bytes) -> None:
    """What POST /debug/memory/captures checks."""
    try:
        told: Any = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        kind_named(told.pop("kind", None)).checked(told)


def _message(data: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        right.settimeout(10)
        writer = threading.Thread(target=_sent, args=(left, data))
        writer.start()
        try:
            read_frame(right, 65536)
        finally:
            right.close()
            writer.join()


def _sent(end: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)


def _head(data: bytes) -> None:
    text = data.decode("latin-1")
    host = access._host_of(text)
    assert "@" not in host
    assert "/" not in host
    access._origin(text)
    access._tokens_in(text)
    assert not session.proves(session.value_of(text), "token", 1.8e9)


def _names(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    hidden_shapes(text)
    shown_path(text)


READERS: dict[str, Callable[[bytes], None]] = {
    "profile": _profile,
    "rules": _rules,
    "recording": _recording,
    "manifest": _manifest,
    "capture": _capture,
    "upload": _upload,
    "address": _address,
    "options": _options,
    "message": _message,
    "head": _head,
    "names": _names,
}
