"""The commands of docs/resume.md, typed as they stand there: a client that is cut off gets the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.protocol.sse import EventDecoder

PAGE = Path(__file__).parents[2] / "docs/resume.md"
ADDRESS = "127.0.0.1:8080"


@pytest.mark.needs("curl", "curl")
def test_the_commands_of_the_page_bring_every_event_once(launch: Callable[..., Any], tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    serve, cut_off = (re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in blocks[:2])
    assert serve == "RELAY_RESUME=memory relay serve"
    relay = launch(
        sys.executable, "-m", "relay", "serve", "--port", "0", "--no-diagnostics",
        env={"RELAY_RESUME": "memory", "RELAY_DRAIN_SECONDS": "0"}, cwd=tmp_path,
    )  # fmt: skip
    address = relay.wait_for("relay http").split()[1].removeprefix("http://")
    assert cut_off.count(ADDRESS) == 2
    script = cut_off.replace(ADDRESS, address)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    part, rest = (EventDecoder().feed((tmp_path / name).read_bytes()) for name in ("part", "rest"))
    assert part
    assert rest[-1].data == "[DONE]"
    numbers = [int(event.id.rpartition(":")[2]) for event in part + rest]
    assert numbers == list(range(1, 44))
