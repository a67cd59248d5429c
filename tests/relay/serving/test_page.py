"""The page at GET /, in a real browser, under its Content-Security-Policy."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.chromium import run_once  # found once the path is set

Served = Any  # the fixtures are typed in conftest.py


def shown(url: str, tmp_path: Path) -> dict[str, str]:
    """What the page's fields hold once the browser has nothing left to do for some seconds of its own time."""
    done = run_once(tmp_path, "--no-proxy-server", "--virtual-time-budget=20000", "--dump-dom", url)
    return dict(re.findall(r'<(?:dd|pre) id="(\w+)"[^>]*>(.*?)</(?:dd|pre)>', done.stdout, re.DOTALL))


def test_the_page_needs_nothing_from_elsewhere_and_links_to_the_monitor(relay: Served) -> None:
    answer = relay.get("/")
    text = answer.body.decode()
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert relay.lines[1].split()[1] in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {relay.lines[1].split()[1]}
    assert " style=" not in text
    assert not re.search(r"\son[a-z]+=", text)
    assert "{{" not in text


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_a_browser_shows_the_stream_and_closes_it_at_its_end(relay: Served, tmp_path: Path) -> None:
    before = relay.stats()["started"]
    seen = shown(f"{relay.url}/#prompt=hi&model={quote('sim:events=5,pace=20,first=0')}", tmp_path)
    assert seen["state"] == "done"
    assert seen["events"] == "8"
    assert re.fullmatch(r"\d+ ms", seen["first"])
    assert len(seen["text"].encode()) == 5 * 24
    assert relay.stats()["started"] - before == 1  # it did not ask again


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_a_browser_shows_an_error_of_the_stream(relay: Served, tmp_path: Path) -> None:
    seen = shown(f"{relay.url}/#prompt=hi&model={quote('sim:events=5,pace=0,fault=disconnect@3')}", tmp_path)
    assert seen["state"] == "error: the upstream broke the connection off"
