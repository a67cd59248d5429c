"""`diagnostics capture` against a monitor that is hostile: real sockets, and nothing written but where it was asked for."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from diagnostics.cli import main
from diagnostics.commands._landing import Landing, artifacts_of
from diagnostics.errors import TargetError, UsageError

ID = "20261128T140307-512000-tracemalloc"
BODY = b'{"harmless": true}'
SHA = hashlib.sha256(BODY).hexdigest()


def capture(**changed: Any) -> dict[str, Any]:
    artifact = {"name": "profile.json", "bytes": len(BODY), "sha256": SHA, **changed.pop("artifact", {})}
    return {
        "id": ID, "kind": "tracemalloc", "worker": "0", "workers": ["0"], "pid": 1, "state": "done", "progress": 1.0,
        "estimate": {}, "error": None, "artifacts": [artifact],
        "result": {"total_bytes": 0, "top": [], "not_covered": [], "coverage_percent": None}, **changed,
    }  # fmt: skip


@pytest.fixture
def hostile() -> Iterator[Callable[..., str]]:
    """`hostile(capture, body, headers)` -> the URL of a server that answers as a monitor might that means harm."""
    servers: list[ThreadingHTTPServer] = []

    def start(told: Any, body: bytes = BODY, **headers: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, data: bytes, **more: str) -> None:
                self.send_response(200)
                for name, value in more.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(data)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(told if isinstance(told, bytes) else json.dumps(told).encode())

            def do_GET(self) -> None:
                if "/artifacts/" in self.path:
                    self._answer(body, **headers)
                else:
                    self._answer(json.dumps(told).encode())

            def log_message(self, *arguments: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Done:
    returncode: int
    stderr: str


def taken(url: str, output: Path, *more: str) -> Done:
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = main(["capture", url, "--kind", "tracemalloc", "-o", str(output), *more])
    return Done(code, said.getvalue().replace("\n", " "))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_what_an_honest_monitor_sends_lands_below_the_folder(hostile: Callable[..., str], tmp_path: Path) -> None:
    done = taken(hostile(capture()), tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert files_below(tmp_path) == {f"out/{ID}/profile.json"}
    assert (tmp_path / "out" / ID / "profile.json").read_bytes() == BODY


@pytest.mark.parametrize(
    "told",
    [
        capture(id="../escaped"),
        capture(id="/tmp/escaped"),
        capture(id=f"{ID}/../../escaped"),
        capture(id=f"{ID}\n"),
        capture(id=7),
        capture(artifact={"name": "../escaped.json"}),
        capture(artifact={"name": "/etc/escaped"}),
        capture(artifact={"name": ".bashrc"}),
        capture(artifact={"name": "a/b"}),
        capture(artifact={"name": "a\\..\\b"}),
        capture(artifact={"name": "x" * 300}),
        capture(artifact={"bytes": -1}),
        capture(artifact={"bytes": 10**15}),
        capture(artifact={"sha256": "0"}),
        capture(artifacts=[{"name": "a", "bytes": 0, "sha256": SHA}] * 1000),
        capture(artifacts={"name": "a"}),
        {"state": "done"},
        b"[" * 100_000,
        b'"\\u001b]0;title\\u0007"',
    ],
    ids=lambda told: repr(told)[-60:],
)
def test_an_id_or_a_name_that_is_none_writes_nothing(hostile: Callable[..., str], tmp_path: Path, told: Any) -> None:
    done = taken(hostile(told), tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert files_below(tmp_path) == set()
    assert "Traceback" not in done.stderr
    assert "\x1b]" not in done.stderr


def test_the_worker_of_a_group_is_a_name_from_a_peer_too(hostile: Callable[..., str], tmp_path: Path) -> None:
    group = {
        "id": f"all-{ID}", "kind": "tracemalloc", "worker": "all", "state": "done", "progress": 1.0,
        "captures": [capture(worker="../../0")], "not_taken": {},
    }  # fmt: skip
    done = taken(hostile(group), tmp_path / "out", "--all-workers")
    assert done.returncode == 3, done.stderr
    assert files_below(tmp_path) == set()


def test_more_or_other_bytes_than_announced_are_not_kept(hostile: Callable[..., str], tmp_path: Path) -> None:
    for body, headers in (
        (BODY + b" ", {}),
        (BODY.replace(b"true", b"null"), {}),
        (gzip.compress(bytes(10_000_000)), {"Content_Encoding": "gzip"}),
        (gzip.compress(BODY), {"Content_Encoding": "gzip, gzip"}),
    ):
        done = taken(hostile(capture(), body, **headers), tmp_path / "out")
        assert done.returncode == 3, done.stderr
        assert files_below(tmp_path) == set()


def test_no_link_is_followed_below_the_folder(hostile: Callable[..., str], tmp_path: Path) -> None:
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    output.mkdir()
    (output / ID).symlink_to(elsewhere)
    done = taken(hostile(capture()), output)
    assert done.returncode == 2
    assert "is a link" in done.stderr
    assert files_below(elsewhere) == set()
    (output / ID).unlink()
    (output / ID).mkdir()
    victim = elsewhere / "victim"
    victim.write_text("as it was", encoding="utf-8")
    for name in ("profile.json", "profile.json.partial"):
        (output / ID / name).symlink_to(victim)
    assert taken(hostile(capture()), output).returncode == 0
    assert victim.read_text(encoding="utf-8") == "as it was"
    assert (output / ID / "profile.json").read_bytes() == BODY
    assert not (output / ID / "profile.json").is_symlink()


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "folder")

    def interrupted() -> None:
        with landing.file("name") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert files_below(tmp_path) == set()
    with pytest.raises(TargetError), landing.file("../name"):
        pass
    with pytest.raises(TargetError):
        artifacts_of(capture(artifact={"name": "profile.json.partial"}))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="file"), Landing(tmp_path / "file").file("name"):
        pass
