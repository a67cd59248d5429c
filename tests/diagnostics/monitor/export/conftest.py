"""A receiver of profiles on a real socket, which answers as a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

import pytest


@dataclass(frozen=True)
class Pushed:
    """A request that was received; `headers` by their names in lower case."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class ProfileReceiver:
    """Receives on a port of its own.

    reply    what is answered, by what was pushed
    answers  while this is cleared, what comes is left without an answer
    """

    def __init__(self) -> None:
        self.pushed: list[Pushed] = []
        self.reply: Callable[[Pushed], Reply] = lambda pushed: Reply()
        self.answers = Event()
        self.answers.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                parts = urlsplit(self.path)
                query = {
                    name: values[0] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()
                }
                headers = {name.lower(): value for name, value in self.headers.items()}
                pushed = Pushed(parts.path, query, headers, self.rfile.read(int(headers["content-length"])))
                receiver.pushed.append(pushed)
                receiver.answers.wait()
                reply = receiver.reply(pushed)
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that has given up: the tests ask what it says."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[ProfileReceiver]:
    made = ProfileReceiver()
    yield made
    made.close()
