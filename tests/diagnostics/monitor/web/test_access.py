"""Who may ask the monitor what, what becomes of input that is none, and what the audit log says of it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.audit import MAX_BYTES, MAX_REFUSALS, Asker, Audit
from diagnostics.monitor.kernel.sockdiag import owner_of
from diagnostics.monitor.web import token_guesses
from diagnostics.monitor.web.access import _may_start
from diagnostics.monitor.web.token_guesses import Guesses

ROOT = Path(__file__).parents[4]
TOKENS = {"DIAGNOSTICS_TOKEN": "all-of-it", "DIAGNOSTICS_READ_TOKEN": "some-of-it"}


@dataclass
class Alone:
    """A monitor without a service."""

    url: str
    folder: Path
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def audited(self) -> list[dict[str, Any]]:
        path = self.folder / "audit.log"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def raw(self, sent: bytes) -> bytes:
        """The answer to these bytes, until the monitor closes."""
        with socket.create_connection(self.address, 60) as client:
            client.sendall(sent)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := client.recv(65536):
                    answer += part
            return answer


def _started(folder: Path, environment: dict[str, str]) -> Iterator[Alone]:
    log = folder / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", str(folder / "dir")],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
    try:
        while "/debug/memory" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.02)
        yield Alone(log.read_text(encoding="utf-8").split()[1].removesuffix("/debug/memory"), folder / "dir", log)
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    yield from _started(tmp_path_factory.mktemp("open"), {})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    yield from _started(tmp_path_factory.mktemp("guarded"), TOKENS)


DEEP = b"[" * 60_000
LONG = b"9" * 5_000


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/debug/memory/captures", b"application/json", DEEP),
        ("/debug/memory/captures", b"application/json", b'{"kind": "memray", "seconds": ' + LONG + b"}"),
        ("/debug/memory/captures", b"application/json", b'{"kind": "memray", "seconds": ' + b"9" * 400 + b"}"),
        ("/debug/memory/captures", b"application/json", b'{"kind": "\\ud800", "worker": "\\ud800"}'),
        ("/debug/memory/rules", b"text/plain", b"a = " + DEEP),
        ("/debug/memory/rules", b"text/plain", b"a = " + LONG),
        ("/debug/memory/rules", b"text/plain", b"\xff\xfe"),
        ("/debug/memory/rules", b"text/plain", b'[[rule]]\nname = "a"\ntrigger = {}\n'),
        ("/debug/memory/captures", b"application/json", b'{"kind": {}, "worker": []}'),
        ("/debug/memory/rules", b"text/plain", b"x" * 100_000),
        ("/debug/memory/login", b"text/plain", b"token=" + b"%" * 4000),
    ],
    ids=lambda value: value.decode("latin-1")[:24] if isinstance(value, bytes) else value,
)
def test_a_body_that_is_none_is_a_4xx_and_no_traceback(alone: Alone, path: str, kind: bytes, body: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    answer = alone.raw(head % (path.encode(), kind, len(body)) + body)
    assert answer.startswith(b"HTTP/1.1 4"), answer[:300]


@pytest.mark.parametrize(
    "line",
    [b"Host: [", b"Host: ]:1", b"Host: [::1", b"Host: localhost:port", b"Host: localhost/x", b"Host: a@localhost",
     b"Host: localhost\r\nOrigin: http://[", b"Host: localhost\r\nOrigin: null", b"Host: localhost\r\nOrigin: x",
     b"Host: localhost\r\nCookie: highwater=9.\xff", b"Host: localhost" + b"\r\na: b" * 200],
)  # fmt: skip
def test_a_head_that_is_none_is_a_4xx_and_no_traceback(alone: Alone, line: bytes) -> None:
    answer = alone.raw(b"GET /debug/memory HTTP/1.1\r\nConnection: close\r\n" + line + b"\r\n\r\n")
    expected = b"HTTP/1.1 200" if b"Cookie" in line else b"HTTP/1.1 4"
    assert answer.startswith(expected), answer[:300]


@pytest.mark.parametrize("query", ["gc=", "force=", "debug=", "seconds=", "worker="])
def test_a_number_of_5000_digits_in_an_address_is_a_4xx(alone: Alone, query: str, http: Any) -> None:
    assert 400 <= http(f"{alone.url}/debug/pprof/heap?{query}{LONG.decode()}").status < 500


def test_what_a_page_of_another_origin_asks_for_is_refused_and_a_link_may_be_followed(alone: Alone, http: Any) -> None:
    def asked(site: str, mode: str, target: str, path: str = "/metrics") -> int:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": target}
        status: int = http(alone.url + path, headers=headers).status
        return status

    assert asked("same-origin", "cors", "empty") == 200
    for site in ("cross-site", "same-site"):
        assert asked(site, "no-cors", "image") == 403
        assert asked(site, "navigate", "iframe") == 403
        assert asked(site, "navigate", "document") == 200


@pytest.mark.parametrize(
    ("headers", "who", "may"),
    [
        ({}, "anybody", True),  # curl, a scraper, `go tool pprof`
        ({"user-agent": "Go-http-client/1.1"}, "anybody", True),
        ({"sec-fetch-site": "same-origin"}, "anybody", True),
        ({"sec-fetch-site": "none"}, "anybody", False),  # a link in a chat: nobody's page, and nobody's will
        ({"sec-fetch-site": "cross-site"}, "anybody", False),
        ({"user-agent": "Mozilla/5.0"}, "anybody", False),
        ({"user-agent": "Mozilla/5.0", "referer": "http://evil.example/x"}, "anybody", False),
        ({"user-agent": "Mozilla/5.0", "referer": "http://localhost:6060/debug/pprof/"}, "anybody", True),
        ({"cookie": "highwater=1"}, "DIAGNOSTICS_TOKEN", False),
        ({"cookie": "highwater=1", "sec-fetch-site": "same-origin"}, "DIAGNOSTICS_TOKEN", True),
        ({"authorization": "Bearer x", "user-agent": "Mozilla/5.0"}, "DIAGNOSTICS_TOKEN", True),
        ({"authorization": "Basic x"}, "DIAGNOSTICS_TOKEN", True),
        ({"authorization": "Basic x", "user-agent": "Mozilla/5.0"}, "DIAGNOSTICS_TOKEN", False),
        ({"authorization": "Bearer x"}, "DIAGNOSTICS_READ_TOKEN", False),
        ({}, "nobody", False),
    ],
)
def test_who_may_begin_what_costs_by_a_get(headers: dict[str, str], who: str, may: bool) -> None:
    assert _may_start({"host": "localhost:6060", **headers}, who) is may


def test_a_token_is_shown_as_bearer_or_in_an_address(guarded: Alone, http: Any) -> None:
    def asked(authorization: str) -> int:
        status: int = http(f"{guarded.url}/debug/memory", headers={"Authorization": authorization}).status
        return status

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert asked("Bearer some-of-it") == asked("bearer all-of-it") == 200
    assert asked(basic("all-of-it:")) == asked(basic("x:some-of-it")) == 200
    assert asked(basic("x:y")) == asked("Basic \xff".encode("latin-1").decode("latin-1")) == asked("Bearer ") == 401


def test_guesses_are_slowed_and_logged_and_the_right_token_is_not(guarded: Alone, http: Any) -> None:
    def took(token: str) -> float:
        began = time.monotonic()
        http(f"{guarded.url}/debug/memory", headers={"Authorization": f"Bearer {token}"})
        return time.monotonic() - began

    before = len(guarded.audited())
    assert took("guessed-in-vain") >= token_guesses.FIRST_SECONDS
    wrong = http(f"{guarded.url}/debug/memory/login", "POST", b"token=guessed-in-the-form")
    assert wrong.status == 401
    began, password = time.monotonic(), base64.b64encode(b"user:guessed-as-a-password").decode()
    basic = http(f"{guarded.url}/debug/pprof/heap", headers={"Authorization": f"Basic {password}"})
    assert (basic.status, time.monotonic() - began >= token_guesses.FIRST_SECONDS) == (401, True)
    lines = guarded.audited()[before:]
    assert [(line["event"], line["outcome"], line["who"]) for line in lines] == [("refusal", "401", "nobody")] * 3
    assert all(line["peer"].startswith("127.0.0.1:") and line["uid"] == os.geteuid() for line in lines)
    text = (guarded.folder / "audit.log").read_text(encoding="utf-8")
    assert not any(word in text for word in ("guessed", *TOKENS.values()))
    assert stat.S_IMODE((guarded.folder / "audit.log").stat().st_mode) == 0o600


def test_the_longer_somebody_guesses_the_longer_each_takes_and_it_is_forgotten() -> None:
    now = 0.0
    counted = Guesses(clock=lambda: now)
    first = counted.seconds()
    waits = [counted.seconds() for _ in range(1000)]
    assert token_guesses.FIRST_SECONDS <= first < waits[0] < waits[5]
    assert max(waits) == token_guesses.MOST_SECONDS
    now = 3600.0 * 24
    assert counted.seconds() == first


def test_the_audit_log_names_who_logged_in_captured_and_was_refused(guarded: Alone, http: Any) -> None:
    before = len(guarded.audited())
    url = f"{guarded.url}/debug/memory"
    http(f"{url}/captures", "POST", {"kind": "memray", "seconds": 5}, {"Authorization": "Bearer all-of-it"})
    http(f"{url}/captures", "POST", {"kind": "memray"}, {"Authorization": "Bearer some-of-it"})
    http(f"{url}", headers={"Host": "evil.example"})
    http(f"{url}/login", "POST", b"token=all-of-it", {"Origin": guarded.url})
    lines = [
        (line["event"], line["outcome"], line["who"])
        for line in guarded.audited()[before:]
        if line["event"] != "refusal" or line["outcome"] != "401"
    ]
    assert lines[:4] == [
        ("capture", "not_found", "DIAGNOSTICS_TOKEN"),  # no worker is there
        ("refusal", "403", "DIAGNOSTICS_READ_TOKEN"),
        ("refusal", "421", "nobody"),
        ("login", "done", "DIAGNOSTICS_TOKEN"),
    ]


def test_the_audit_log_is_bounded_and_refusals_do_not_push_out_what_was_before(tmp_path: Path) -> None:
    now = 0.0
    audit = Audit(tmp_path / "dir" / "audit.log", clock=lambda: now)
    audit.note("capture", "begun", Asker("anybody"), kind="memray")
    for _ in range(10_000):
        audit.note("refusal", "401", Asker("nobody"), path="/" + "x" * 30_000)
    now = 61.0
    audit.note("refusal", "401", Asker("nobody"))
    lines = [json.loads(line) for line in audit.path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 1 + MAX_REFUSALS + 1
    assert lines[0]["event"] == "capture"
    assert lines[-1]["not_written"] == 10_000 - MAX_REFUSALS
    assert len(lines[1]["path"]) <= 200
    for number in range(3 * MAX_BYTES // 300):
        audit.note("capture", "begun", Asker("anybody"), kind="x" * 150, number=number)
    files = sorted(path.name for path in audit.path.parent.iterdir())
    assert files == ["audit.log", "audit.log.1"]
    assert all(path.stat().st_size <= MAX_BYTES for path in audit.path.parent.iterdir())


def test_an_audit_log_that_cannot_be_written_keeps_nobody_from_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(tmp_path / "dir" / "audit.log")
    audit.path.parent.mkdir()
    audit.path.symlink_to(tmp_path / "elsewhere")
    for _ in range(5):
        audit.note("capture", "begun", Asker("anybody"))
    assert not (tmp_path / "elsewhere").exists()
    assert len(caplog.records) == 1
    audit.path.unlink()
    audit.note("capture", "begun", Asker("anybody"))
    assert json.loads(audit.path.read_text(encoding="utf-8"))["not_written"] == 5


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_says_whose_connection_it_is(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"no {host} here: {error.strerror}")
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        assert owner_of(client.getsockname()[:2], listener.getsockname()[:2]) == os.geteuid()
        assert owner_of(("192.0.2.1", 1), ("192.0.2.2", 2)) is None
        assert owner_of(("no address", 1), ("192.0.2.2", 2)) is None
