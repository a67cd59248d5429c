"""Redirects, cookies and headers of any bytes from an upstream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Start = Any

EVENTS = b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
# In UTF-8, which no standard forbids, as http.server writes it and urllib reads it.
REQUEST_ID = "1 €".encode().decode("latin-1")


class Upstream(ThreadingHTTPServer):
    """Asked below /old, it sends everybody to /new and sets a cookie in both places."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, bytes]] = []  # path, cookie, body
        self.traceparents: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.traceparents.append(self.headers["traceparent"])
        self.server.requests.append((self.path, self.headers["cookie"], body))
        if self.path.startswith("/old/"):
            self.send_response(307)
            self.send_header("location", self.path.replace("/old/", "/new/"))
            content = b""
        else:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("X-Request-Id", REQUEST_ID)
            content = EVENTS
        self.send_header("set-cookie", "who=first; Path=/")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_one_callers_cookie_is_not_sent_with_anothers_request(start: Start, upstream: Upstream) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-base-url", f"http://127.0.0.1:{upstream.server_port}/new/v1", announced=2
    )  # fmt: skip
    for _ in range(2):
        answer = relay.chat("m")
        assert answer.body == EVENTS
        assert answer.headers["x-request-id"] == REQUEST_ID
    assert [cookie for _, cookie, _ in upstream.requests] == [None, None]


@pytest.mark.parametrize("stream", [True, False])
def test_a_redirect_is_not_followed(start: Start, upstream: Upstream, stream: bool) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-base-url", f"http://127.0.0.1:{upstream.server_port}/old/v1", announced=2
    )  # fmt: skip
    answer = relay.chat("m", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol")
    assert "redirect (307)" in answer.error["message"]
    assert {path for path, *_ in upstream.requests} == {"/old/v1/chat/completions"}  # the prompt went nowhere else


def test_a_callers_trace_goes_on_as_it_came_whatever_its_bytes(start: Start, upstream: Upstream) -> None:
    relay = start(
        "--no-diagnostics", "--upstream-base-url", f"http://127.0.0.1:{upstream.server_port}/new/v1", announced=2
    )  # fmt: skip
    with relay.open("m", traceparent="€uro") as connection:
        while b"[DONE]" not in connection.recv(65536):
            pass
    assert upstream.traceparents == ["€uro".encode().decode("latin-1")]
