"""The request of docs/signed-urls.md, typed as it stands there, and what its answer is good for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.admission.keys import hash_of

PAGE = Path(__file__).parents[2] / "docs/signed-urls.md"
ADDRESS, KEY = "127.0.0.1:8080", "k" * 40


@pytest.mark.needs("curl", "curl")
def test_the_url_of_the_page_lets_an_event_source_in(
    launch: Callable[..., Any], subscribe: Callable[..., Any], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    (ask,) = re.findall(r"^ {4}(curl .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    relay = launch(
        sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics",
        env={"RELAY_CLIENT_KEYS": f"app:subscribe:{hash_of(KEY.encode())}", "RELAY_URL_SECRETS": "s" * 64}, cwd=tmp_path,
    )  # fmt: skip
    address = relay.wait_for("relay http").split()[1].removeprefix("http://")
    assert ask.count(ADDRESS) == 1
    command = ["bash", "-c", f"KEY={KEY}; {ask.replace(ADDRESS, address)} -s"]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=60)
    answer = json.loads(done.stdout)
    assert answer["url"].startswith(f"/v1/topics/news?expires={answer['expires']}&key=app&signature=")
    one = subscribe(f"http://{address}{answer['url']}")
    eventually(lambda: one.raw)
    assert one.answers == [200]
