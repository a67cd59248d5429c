"""GET /debug/memory/fleet: the page of several real monitors, in a browser too, and what a hostile target can do with it."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from diagnostics.errors import NotFoundError, UsageError
from diagnostics.fleet.answers import row_of
from diagnostics.fleet.overviews import overviews
from diagnostics.fleet.replicas import HourlyGrowth, Replica
from diagnostics.fleet.targets import Target
from diagnostics.monitor.settings import MonitorSettings
from diagnostics.monitor.web.fleet_look import FleetLook, FleetRows
from diagnostics.monitor.web.routes.fleet import rendered

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.chromium import Browser  # found once the path is set

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
"""
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


# A page of real monitors


@pytest.mark.needs("chromium", "chromium")
def test_the_page_of_monitors_that_run_on_a_desktop_and_on_a_phone(
    observed: Any, launch: Any, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    replicas = [observed(APP, env={"DIAGNOSTICS_DIR": str(tmp_path / f"{number}")}).monitor for number in range(2)]
    for monitor in replicas:
        eventually(lambda monitor=monitor: http(f"{monitor}/debug/memory").json()["workers"])
    gone = f"127.0.0.1:{free_port()}"
    words = ",".join(monitor.removeprefix("http://") for monitor in replicas)
    alone = launch(
        sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--fleet", words, "--fleet", gone,
        env={"DIAGNOSTICS_DIR": str(tmp_path / "alone")},
    )  # fmt: skip
    monitor = alone.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    told = http(f"{monitor}/debug/memory/fleet").json()
    assert (told["schema"], told["unresolved"]) == ("highwater.fleet/1", [])
    rows = {row["url"]: row for row in told["replicas"]}
    assert set(rows) == {*replicas, f"http://{gone}"}
    assert rows[f"http://{gone}"]["error"].startswith(f"no monitor answers at http://{gone}")
    assert all(rows[url]["rss_bytes"] > 0 and rows[url]["version"] and rows[url]["workers"] == 1 for url in replicas)

    for width in (1280, 390):
        folder = tmp_path / f"browser-{width}"
        folder.mkdir()
        with Browser(folder, width=width) as browser:
            browser.open(f"{monitor}/debug/memory/fleet")
            # Complete: with its style sheet, without which nothing has its place yet.
            browser.until("document.readyState === 'complete' && document.querySelectorAll('tbody tr').length === 3")
            text = browser.text()
            assert "2 of 3 answer" in text
            assert "no answer" in text
            links = browser.evaluate("[...document.querySelectorAll('tbody a')].map((a) => a.href)")
            assert sorted(links) == sorted(f"{url}/debug/memory" for url in rows)
            # Nothing is cut off: no part of the page is wider than the window.
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
    alone.end()


def test_without_targets_there_is_no_page_and_it_says_why(observed: Any, http: Any) -> None:
    service = observed(APP)
    answer = http(f"{service.monitor}/debug/memory/fleet")
    assert answer.status == 404
    assert "it has no targets" in answer.json()["error"]["message"]
    assert "DIAGNOSTICS_FLEET_TARGETS" in answer.json()["error"]["remedy"]


def test_it_needs_the_right_to_read_and_asks_with_the_lesser_token(
    observed: Any, launch: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    tokens = {"DIAGNOSTICS_TOKEN": "all-of-it", "DIAGNOSTICS_READ_TOKEN": "only-look"}
    replica = observed(APP, env={**tokens, "DIAGNOSTICS_DIR": str(tmp_path / "0")}).monitor
    reads = {"Authorization": "Bearer only-look"}
    eventually(lambda: http(f"{replica}/debug/memory", headers=reads).json()["workers"])
    alone = launch(
        sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0",
        env={**tokens, "DIAGNOSTICS_DIR": str(tmp_path / "alone"), "DIAGNOSTICS_FLEET_TARGETS": f" {replica} ;"},
    )  # fmt: skip
    monitor = alone.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    assert http(f"{monitor}/debug/memory/fleet").status == 401
    (row,) = http(f"{monitor}/debug/memory/fleet", headers=reads).json()["replicas"]
    assert (row["error"], row["workers"]) == ("", 1)
    page = http(f"{monitor}/debug/memory/fleet", headers={**reads, **BROWSER})
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert b"only-look" not in page.body
    assert b"all-of-it" not in page.body
    audit = (
        (tmp_path / "0" / "audit.log").read_text(encoding="utf-8") if (tmp_path / "0" / "audit.log").exists() else ""
    )
    assert "all-of-it" not in audit
    alone.end()


def test_a_word_that_is_no_address_stops_the_monitor_at_its_start(launch: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DIAGNOSTICS_FLEET_TARGETS"):
        MonitorSettings.of({"DIAGNOSTICS_FLEET_TARGETS": "ftp://x"})
    assert MonitorSettings.of({"DIAGNOSTICS_FLEET_TARGETS": "dns:relay:6060; k8s:app=relay;;"}).fleet == (
        "dns:relay:6060", "k8s:app=relay",
    )  # fmt: skip
    command = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--fleet", "http://")
    assert command.process.wait(60) == 2
    assert "is not a monitor's address" in command.output


# Targets that do not behave


class Peer:
    """A target of our making. `asked`: the tokens that it was shown. It answers once `holds` is set, where that is given."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.status = 200
        self.body = b"{}"
        self.headers: dict[str, str] = {}
        self.holds: threading.Event | None = None
        self.drips = False
        self.url = ""


@pytest.fixture
def target() -> Iterator[Peer]:
    state = Peer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers["Authorization"])
            if state.holds is not None:
                state.holds.wait(60)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                while state.drips:
                    self.wfile.write(b" ")
                    time.sleep(0.02)
                self.wfile.write(state.body)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing on the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    state.drips = False
    if state.holds is not None:
        state.holds.set()
    server.shutdown()
    thread.join()
    server.server_close()


def row_for(target: Peer, **how: float) -> Replica:
    (row,) = asyncio.run(overviews([Target("a", target.url)], "token", **how))
    return row


@pytest.mark.parametrize(
    ("status", "body", "headers", "says"),
    [
        (200, b"<html>", {}, "the answer is not JSON"),
        (200, b"[]", {}, "the answer is a JSON list"),
        (200, b'{"workers": [3], "service": {}}', {}, "is none of a monitor of ours"),
        (200, b"x", {"Content-Encoding": "gzip"}, "answered in 'gzip'"),
        (200, b" " * 5_000_000, {}, "sends more than"),
        (302, b"", {"Location": "http://127.0.0.1:1/"}, "answered 302, and is no monitor"),
        (401, b'{"error": {"message": "a token is needed", "remedy": "send one"}}', {}, "a token is needed; send one"),
    ],
)
def test_what_is_no_overview_is_a_row_that_says_so(
    target: Peer, status: int, body: bytes, headers: dict[str, str], says: str
) -> None:
    target.status, target.body, target.headers = status, body, headers
    row = row_for(target)
    assert says in row.error
    assert target.asked == ["Bearer token"]


def test_one_that_drips_or_waits_for_ever_is_given_up_and_the_others_are_an_answer(target: Peer) -> None:
    target.drips = True
    assert row_for(target, each_seconds=0.3).error == "no answer within 0.3 s"
    target.drips, target.holds = False, threading.Event()
    rows = asyncio.run(overviews([Target(f"{n}", target.url) for n in range(40)], "", each_seconds=50, all_seconds=0.5))
    assert {row.error for row in rows} == {"there was no time for it within 0.5 s for all"}
    assert len(target.asked) <= 1 + 16  # so many at once


def test_however_many_look_each_target_is_asked_once(target: Peer) -> None:
    async def looks() -> list[FleetRows]:
        look = FleetLook([target.url, target.url.removeprefix("http://")], ["secret"], shared_seconds=3600)
        first = await asyncio.gather(*(look.read() for _ in range(50)))
        return [*first, await look.read()]

    rows = asyncio.run(looks())
    assert len({id(each) for each in rows}) == 1
    assert target.asked == ["Bearer secret"]


def test_a_target_that_says_the_token_again_does_not_show_it(target: Peer) -> None:
    target.status, target.body = 403, json.dumps({"error": {"message": "you sent secret-1", "remedy": ""}}).encode()

    async def look() -> FleetRows:
        return await FleetLook([target.url], ["secret-1", "secret-2"]).read()

    rows = asyncio.run(look())
    assert rows.replicas[0].error == "you sent (hidden)"
    assert "secret" not in json.dumps(rows.to_json()) + rendered(rows)


def test_a_word_that_leads_nowhere_is_told_beside_the_others(target: Peer, free_port: Any) -> None:
    word = f"prometheus:http://user:secret@127.0.0.1:{free_port()}?up"

    async def look() -> FleetRows:
        return await FleetLook([word, target.url], []).read()

    rows = asyncio.run(look())
    assert len(rows.replicas) == 1
    ((shown, error),) = rows.unresolved.items()
    assert shown == word.replace("user:secret@", "")
    assert "nothing answers at" in error
    assert "secret" not in json.dumps(rows.to_json()) + rendered(rows)


def test_where_no_word_leads_anywhere_each_is_told(free_port: Any) -> None:
    """As in an outage of the resolver."""
    word = f"prometheus:http://127.0.0.1:{free_port()}?up"
    rows = asyncio.run(FleetLook([word], []).read())
    assert (list(rows.replicas), list(rows.unresolved)) == ([], [word])
    assert rows.to_json()["replicas"] == []
    assert "nothing answers at" in rendered(rows)


def test_a_monitor_without_words_has_no_fleet() -> None:
    with pytest.raises(NotFoundError, match="knows no fleet"):
        asyncio.run(FleetLook([], []).read())


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**400), st.floats(), st.text(max_size=5),
    st.just([]), st.just({}), st.just([[]]),
)  # fmt: skip
PLACES = [
    (), ("workers",), ("service",), ("ends",), ("version",), ("workers", 0), ("workers", 0, "verdict"),
    ("workers", 0, "ledger"),
    ("workers", 0, "connections"), ("workers", 0, "growth"), ("workers", 0, "growth", "mid"), ("workers", 0, "limit"),
    ("workers", 0, "limit", "limit_bytes"), ("workers", 0, "limit", "used_bytes"), ("workers", 0, "state"),
    ("workers", 0, "ledger", "open"), ("service", "rss_bytes"), ("service", "verdict"), ("service", "verdict", "title"),
    ("service", "verdict", "alarm"), ("ends", 0),
]  # fmt: skip


def overview() -> Any:
    verdict = {"title": "Load only", "confidence": "high", "alarm": False, "says": "x"}
    worker = {
        "state": "answering", "verdict": verdict, "ledger": {"open": 3}, "connections": None,
        "growth": {"low": 0.0, "mid": 1.0, "high": 2.0}, "limit": {"limit_bytes": 100, "used_bytes": 50},
    }  # fmt: skip
    return {
        "version": "1", "workers": [worker], "ends": [{"said": "x"}],
        "service": {"rss_bytes": 1 << 26, "verdict": dict(verdict)},
    }  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PLACES), LEAVES), max_size=3))
def test_whatever_a_target_says_its_row_and_the_others_are_shown(spoilt: list[tuple[tuple[Any, ...], Any]]) -> None:
    told = overview()
    for place, value in spoilt:
        holder = told
        try:
            for key in place[:-1]:
                holder = holder[key]
            if place:
                holder[place[-1]] = value
            else:
                told = value if isinstance(value, dict) else told
        except (TypeError, KeyError, IndexError):
            continue
    good = row_of("good", "http://127.0.0.1:1", overview())
    rows = FleetRows(
        [row_of("a", "http://127.0.0.1:2", told), good, replace(good, name="b"), replace(good, name="c")], {}
    )
    assert good.error == ""
    assert "<td" in rendered(rows)
    assert JSONResponse(rows.to_json()).body


def test_the_page_has_each_column_the_odd_one_and_no_markup_of_others() -> None:
    row = Replica(
        "a<b>", "http://10.0.0.1:6060", version="0.2.0", workers=2, silent=1, verdict="Load only", confidence="high",
        rss_bytes=100 << 20, growth=HourlyGrowth(0, 1 << 20, 2 << 20), streams=None, limit_share=0.5,
    )  # fmt: skip
    others = [replace(row, name=f"pod-{n}", url=f"http://10.0.0.{n}:6060") for n in (2, 3, 4)]
    ill = replace(
        row, name="pod-5", alarm=True, verdict="<script>", says="it & grows", rss_bytes=900 << 20, ends=("<i>",)
    )
    page = rendered(FleetRows([row, *others, ill], {"dns:<x>": "<y>"}))
    for text in ("<b>", "<script", "<i>", "<x>", "<y>"):
        assert text not in page
    assert "5 of 5 answer, 1 with an alarm, 1 odd" in page
    for cell in ("100.00 MiB", "+1.00 MiB +- 1.00 MiB", "unknown", "2 (1 silent)", "50 %", "0.2.0"):
        assert f">{cell}</td>" in page
    assert '<a href="http://10.0.0.1:6060/debug/memory">a&lt;b&gt;</a>' in page
    assert "pod-5 is not as the others: it alone has an alarm, RSS is 9.0 times the median of the others" in page
    assert "next: diagnostics status http://10.0.0.1:6060" in page


def test_a_target_that_is_named_twice_is_asked_once(free_port: Any) -> None:
    word = f"http://127.0.0.1:{free_port()}"
    rows = asyncio.run(FleetLook([word, word], []).read())
    assert [replica.url for replica in rows.replicas] == [word]


def test_a_monitor_without_a_thread_for_it_says_so_and_looks_again(
    free_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = f"http://127.0.0.1:{free_port()}"

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def looks() -> list[FleetRows]:
        look = FleetLook([word], [], shared_seconds=0.0)
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", start)
            first = await look.read()
        return [first, await look.read()]

    first, second = asyncio.run(looks())
    assert "can't start new thread" in first.unresolved[word]
    assert (second.unresolved, len(second.replicas)) == ({}, 1)
