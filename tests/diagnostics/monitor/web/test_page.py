"""The page in a real browser, its event stream, and the login that a token asks for."""

from __future__ import annotations

import json
import socket
import sys
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from diagnostics.monitor.web.session import SECONDS, issue, proves

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.chromium import Browser  # found once the path is set

APP = """
from fastapi import FastAPI
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app)
stream = ledger.open("/chat/<b>x</b>")
stream.hold(64 * 1024 * 1024)
"""
FAST = {"DIAGNOSTICS_RECORD_INTERVAL_SECONDS": "0.1"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def answering(http: Any, service: Any, **headers: str) -> Any:
    workers = http(f"{service.monitor}/debug/memory", headers=headers).json()["workers"]
    return workers and workers[0]["state"] == "answering"


def test_a_browser_gets_the_page_and_a_script_gets_json(observed: Any, http: Any, eventually: Any) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    page = http(f"{service.monitor}/debug/memory", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for word in (b"http://", b"https://", b"style=", b"onclick"):
        assert word not in page.body
    told = http(f"{service.monitor}/debug/memory")
    assert told.json()["workers"][0]["verdict"]["verdict"] == "buffering"
    assert "Accept" in told.headers["vary"]
    for name in ("page.js", "page.css"):
        assert http(f"{service.monitor}/debug/memory/assets/{name}").status == 200
    assert http(f"{service.monitor}/debug/memory/assets/page.html").status == 404
    costs = http(f"{service.monitor}/debug/memory/estimates").json()["estimates"]
    assert costs["tasks"]["stall_ms"] > 0


def test_the_event_stream_tells_the_same_every_second_and_ends_with_the_monitor(
    observed: Any, http: Any, eventually: Any
) -> None:
    service = observed(APP)
    eventually(lambda: answering(http, service))
    host, port = service.monitor.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"GET /debug/memory/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = b""
        while seen.count(b"\ndata: ") < 3:
            seen += client.recv(65536)
        first = next(line for line in seen.splitlines() if line.startswith(b"data: "))
        assert json.loads(first.removeprefix(b"data: "))["workers"][0]["worker"] == "0"
        service.supervisor.end()
        while client.recv(65536):
            pass


def tab(browser: Browser) -> str:
    """Press Tab; returns what has the focus then, by its id or key, once it is seen to have it."""
    browser.press("Tab", 9)
    focus = "document.activeElement"
    assert browser.evaluate(f"getComputedStyle({focus}).outlineStyle") == "solid", browser.evaluate(
        f"{focus}.outerHTML"
    )
    return str(browser.evaluate(f"{focus}.id || {focus}.dataset.key || ''"))


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_the_page_shows_it_all_and_a_keyboard_takes_a_capture(
    observed: Any, http: Any, eventually: Any, tmp_path: Path
) -> None:
    service = observed(APP, env=FAST)
    eventually(lambda: answering(http, service))
    with Browser(tmp_path) as browser:
        browser.open(f"{service.monitor}/debug/memory")
        browser.until(
            "document.querySelectorAll('#buttons button').length === 5 && document.querySelector('#chart path')"
        )
        shown = browser.text()
        assert "Streams are buffered: app layer" in shown
        assert "/chat/<b>x</b>" in shown  # as text: a route is somebody's word
        assert f"diagnostics capture {service.monitor} --kind retained" in shown
        assert "limit-near" in shown
        assert browser.evaluate("document.querySelectorAll('#bar div').length") >= 4
        label = browser.evaluate("document.getElementById('chart').getAttribute('aria-label')")
        assert "RSS from" in label
        assert [tab(browser) for _ in range(7)] == ["copy", "", "", "memray", "tracemalloc", "objects", "tasks"]
        browser.press("Enter", 13)
        browser.until("[...document.querySelectorAll('#captures li')].some((one) => one.innerText.includes('done'))")
        assert [one["kind"] for one in http(f"{service.monitor}/debug/memory").json()["captures"]] == ["tasks"]
        browser.until("document.querySelectorAll('#groups tr').length > 0")
        # The list was drawn anew meanwhile, and the keyboard is still where it was.
        assert browser.evaluate("document.activeElement.dataset.key") == "tasks"
        assert [tab(browser).partition(" ")[2] or "retained" for _ in range(4)] == [
            "retained", "flame.html", "tasks.txt", "Delete",
        ]  # fmt: skip
        browser.press("Enter", 13)
        eventually(lambda: http(f"{service.monitor}/debug/memory").json()["captures"] == [])
        browser.until("document.activeElement.dataset.key === 'memray'")  # not at the top of the page again
        service.supervisor.end()
        browser.until("document.getElementById('live').innerText.includes('has not answered since')")


TOKENS = {"DIAGNOSTICS_TOKEN": "all-of-it", "DIAGNOSTICS_READ_TOKEN": "only-look"}


def logged_in(service: Any, token: str) -> tuple[int, str]:
    """Status and cookie of the login itself: what follows redirects would not show them."""
    host, port = service.monitor.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=60)
    try:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/debug/memory/login", urlencode({"token": token}), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("set-cookie", "")
    finally:
        connection.close()


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_a_browser_logs_in_once_and_its_events_come(observed: Any, http: Any, eventually: Any, tmp_path: Path) -> None:
    service = observed(APP, env={**TOKENS, **FAST})
    eventually(lambda: answering(http, service, Authorization="Bearer only-look"))
    with Browser(tmp_path) as browser:
        browser.open(f"{service.monitor}/debug/memory")
        browser.until("document.getElementById('token')")
        for token, shows in (
            ("wrong", "document.getElementById('token')?.value === ''"),
            ("only-look", "!document.getElementById('token')"),
        ):
            browser.evaluate(f"document.getElementById('token').value = {token!r}")
            browser.evaluate("document.querySelector('form').submit()")
            browser.until(shows)
        browser.until("document.getElementById('verdict-title')?.innerText.includes('Streams are buffered')")
        assert browser.evaluate("document.cookie") == ""  # no script can read it
        browser.until("document.querySelector('#buttons button')")
        browser.evaluate("document.querySelector('#buttons button').click()")
        browser.until("document.getElementById('refused').innerText.includes('the read token captures nothing')")


def test_what_a_cookie_is_and_what_it_may(observed: Any, http: Any) -> None:
    service = observed(APP, env=TOKENS)
    url = f"{service.monitor}/debug/memory"
    assert http(url).status == 401
    form = http(url, headers=BROWSER)
    assert (form.status, b'name="token"' in form.body) == (401, True)
    assert logged_in(service, "wrong") == (401, "")
    status, cookie = logged_in(service, "only-look")
    assert status == 303
    for word in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    value = SimpleCookie(cookie)["highwater"].value
    assert "only-look" not in value
    session = {"Cookie": f"highwater={value}"}
    assert http(url, headers=session).status == 200
    assert http(f"{url}/captures", "POST", {"kind": "tasks"}, session).status == 403
    neighbour = {**session, "Origin": "http://127.0.0.1:1"}  # another program's page on this host sends the cookie, too
    assert http(url, headers=neighbour).status == 401
    whole = {"Cookie": f"highwater={issue('all-of-it', 4_000_000_000 - SECONDS)}"}
    assert http(f"{url}/captures", "POST", {"kind": "nothing"}, whole).status == 422


def test_a_session_ends_and_is_worth_nothing_once_the_token_is_changed() -> None:
    value = issue("token", 1000.0)
    assert proves(value, "token", 1000.0 + SECONDS - 1)
    assert not proves(value, "token", 1000.0 + SECONDS)
    assert not proves(value, "another", 1000.0)
    assert not proves(value, "", 1000.0)
    later = f"{2000 + SECONDS}.{value.partition('.')[2]}"
    for forged in (later, "", ".", "1.", "x.y", f"{'9' * 30}.00", "²." + "0" * 64):
        assert not proves(forged, "token", 1000.0)
