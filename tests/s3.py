"""A real S3 server (moto's) as a process, and a gate before it that holds, refuses or lets through what is sent."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

ACCESS_KEY, SECRET = "AKIAHIGHWATERTESTS00", "secret-of-the-tests-0123456789"
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
# moto looks at who asks, and not at the signature.
_WHO = f"{ACCESS_KEY}/20260101/us-east-1/s3/aws4_request"
_SIGNED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={_WHO}, SignedHeaders=host, Signature=0",
    "Content-Type": "application/octet-stream",  # else it takes the body for a form
}


@dataclass
class S3:
    """The server at `url`, asked without the library under test."""

    url: str
    _buckets: int = 0

    def bucket(self) -> str:
        """A new bucket."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self._ask("PUT", name)
        return name

    def environment(self, url: str = "") -> dict[str, str]:
        """What a client needs to reach it, at `url` where something is before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip

    def keys(self, bucket: str) -> list[str]:
        answer = ElementTree.fromstring(self._ask("GET", f"{bucket}?list-type=2").read())
        return sorted(unquote(each.text or "") for each in answer.iter(f"{_NAMESPACE}Key"))

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self._ask("GET", f"{bucket}/{quote(key)}").read())

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._ask("PUT", f"{bucket}/{quote(key)}", body)

    def headers(self, bucket: str, key: str) -> Any:
        return self._ask("HEAD", f"{bucket}/{quote(key)}").headers

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"{self.url}/{path}", data=body, method=method, headers=_SIGNED)
        return opener.open(request, timeout=60)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[S3]:
    log = folder / "moto.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield S3(found[1])
    finally:
        process.kill()
        process.wait()


@dataclass
class Gate:
    """Before the S3 server.

    mode   what becomes of a PUT: pass, refuse (403, with the access key in its words), hold (no answer)
    puts   how often each path was let through; `held` how many PUTs wait for an answer that does not come
    let    how many PUTs are let through before the mode counts
    """

    url: str = ""
    mode: str = "pass"
    let: int = 0
    held: int = 0
    puts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def gate(behind: S3) -> Iterator[Gate]:
    control = Gate()
    target = urlsplit(behind.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with control.lock:
                mode = "pass" if control.let > 0 else control.mode
                control.let -= 1
            if mode == "hold":
                control.held += 1
                control.end.wait()
                self.close_connection = True
            elif mode == "refuse":
                said = (
                    f"<Code>AccessDenied</Code><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><Message>{SECRET}</Message>"
                )
                self._answer(403, {}, f"<Error>{said}</Error>".encode())
            else:
                control.puts[self.path] += 1
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                with contextlib.closing(connection):
                    connection.request("PUT", self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    self._answer(answer.status, {"ETag": answer.headers["ETag"]}, answer.read())

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the other end was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    control.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield control
    finally:
        control.end.set()
        server.shutdown()
        server.server_close()
        thread.join()


def manifest_of(s3: S3, bucket: str, key: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(s3.get(bucket, key))
    return manifest
