"""An address that the monitor cannot have: the error says who has it, and its remedy is one that can be typed."""

from __future__ import annotations

import inspect
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diagnostics import instrument
from diagnostics.agent.instrument.monitor_process import bind
from diagnostics.errors import UsageError

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})
"""
INSTRUMENTED = """
from diagnostics import instrument
app = instrument(app, monitor=True)
"""
COMMANDS = {
    "run": ("diagnostics", "run", "--listen", "{busy}", "--", sys.executable, "-c", "print('it ran')"),
    "monitor": ("diagnostics", "monitor", "--listen", "{busy}"),
    "relay": ("relay", "serve", "--port", "0", "--diagnostics", "{busy}"),
}
# What a remedy says is typed in front of these words.
REST = {
    "run": ("--", sys.executable, "-c", "print('it ran')"),
    "monitor": (),
    "relay": ("--port", "0"),
}


@pytest.fixture
def busy() -> Iterator[str]:
    """An address that a program has which is no monitor."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def start(launch: Callable[..., Any], tmp_path: Path, *words: str) -> Any:
    return launch(sys.executable, "-m", *words, env={"DIAGNOSTICS_DIR": str(tmp_path / "dir")}, cwd=tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_remedy_for_a_busy_port_can_be_typed(
    launch: Callable[..., Any], busy: str, command: str, tmp_path: Path
) -> None:
    refused = start(launch, tmp_path, *(word.replace("{busy}", busy) for word in COMMANDS[command]))
    assert refused.process.wait(60) == 2, refused.output
    assert f"cannot listen on {busy}: Address already in use; another process has the port" in refused.output
    option = re.search(r"with (--[a-z-]+) HOST:PORT or DIAGNOSTICS_LISTEN", refused.output)
    assert option is not None, refused.output
    follows = start(launch, tmp_path, *COMMANDS[command][:2], option[1], "127.0.0.1:0", *REST[command])
    follows.wait_for("diagnostics http", patience=60)


def test_an_instrumented_app_tells_that_another_program_has_the_port_and_serves(
    launch: Callable[..., Any], http: Callable[..., Any], free_port: Callable[[], int], busy: str, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(APP + INSTRUMENTED, encoding="utf-8")
    port = free_port()
    service = launch(
        sys.executable, "-m", "uvicorn", "service:app", "--port", str(port),
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_LISTEN": busy},
        cwd=tmp_path,
    )  # fmt: skip
    service.wait_for("Uvicorn running", patience=60)
    said = service.wait_for("the service runs without diagnostics")
    assert "another process has the port; choose another address with instrument(app, listen='HOST:PORT')" in said
    assert "listen" in inspect.signature(instrument).parameters
    assert http(f"http://127.0.0.1:{port}").body == b"served"


def test_workers_of_one_service_share_the_monitor_that_the_first_has_started(
    launch: Callable[..., Any],
    http: Callable[..., Any],
    eventually: Callable[..., Any],
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    (tmp_path / "service.py").write_text(APP + INSTRUMENTED, encoding="utf-8")
    listen = f"127.0.0.1:{free_port()}"
    service = launch(
        sys.executable, "-m", "uvicorn", "service:app", "--port", "0", "--workers", "2",
        env={"DIAGNOSTICS_DIR": str(tmp_path / "dir"), "DIAGNOSTICS_LISTEN": listen},
        cwd=tmp_path,
    )  # fmt: skip

    def answering() -> bool:
        try:
            workers = http(f"http://{listen}/debug/memory").json()["workers"]
        except OSError:
            return False
        return len(workers) == 2 and all(worker["state"] == "answering" for worker in workers)

    eventually(answering, patience=60, what="two workers that answer")
    assert "without diagnostics" not in service.output


def test_an_address_that_is_not_ours_is_not_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIAGNOSTICS_TOKEN", "a token")
    with pytest.raises(UsageError, match=r"^the monitor cannot listen on 192\.0\.2\.1:0: .*; choose another") as caught:
        bind("192.0.2.1:0")
    assert caught.value.code == UsageError.code
