"""A service whose memray is of another version than the monitor's: real ones, in environments of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.formats import pprof

ROOT = Path(__file__).parents[4]

# An installation, which takes as long as it takes.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SERVICE = """
import asyncio, sys
sys.path.append(sys.argv[1])
from pathlib import Path
from diagnostics.agent import lifecycle

kept = []

async def main():
    lifecycle.start(Path(sys.argv[2]))
    while True:
        kept.append(bytearray(4000))  # the line of the leak
        await asyncio.sleep(0.005)

asyncio.run(main())
"""


@pytest.fixture(scope="module", params=["1.11.0", "1.15.0"])
def other_memray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The Python of an environment with that memray, and the version; skips where it cannot be had."""
    folder = tmp_path_factory.mktemp(f"memray-{request.param}")
    subprocess.run([sys.executable, "-m", "venv", "--symlinks", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    wanted = f"memray=={request.param}"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--only-binary", ":all:"]
    # rich and jinja2 are what this version needs, without what is drawn on a terminal.
    done = subprocess.run([*pip, "--no-deps", wanted, "rich", "jinja2", "markupsafe", "pygments", "markdown-it-py", "mdurl"],
        check=False, capture_output=True, encoding="utf-8")  # fmt: skip
    if done.returncode:
        pytest.skip(f"{wanted} cannot be installed for this Python here: {done.stderr.strip()[-300:]}")
    return python, request.param


@pytest.fixture
def start(launch: Any, tmp_path: Path, http: Any, eventually: Any) -> Callable[[Path], str]:
    """(the service's Python) -> its monitor's address."""

    def run(python: Path) -> str:
        root = tmp_path / "dir"
        script = tmp_path / "service.py"
        script.write_text(SERVICE, encoding="utf-8")
        launch(python, script, ROOT, root, env={"PYTHONPATH": ""})
        monitor = launch(sys.executable, "-m", "diagnostics", "monitor", "--listen", "127.0.0.1:0", "--dir", root)
        url = str(monitor.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory"))
        eventually(lambda: http(f"{url}/debug/memory").json()["workers"], 30)
        return url

    return run


def leak_of(profile: dict[str, Any]) -> int:
    """Bytes on the line of the leak."""
    line = 1 + next(number for number, text in enumerate(SERVICE.splitlines()) if "the line of the leak" in text)
    own = {
        place for place, (_function, file, at) in enumerate(profile["frames"])
        if file.endswith("service.py") and at == line
    }  # fmt: skip
    return sum(values[0] for stack, values, _labels in profile["samples"] if own & set(stack))


def test_a_capture_by_another_memray_is_read_by_the_services_own(
    other_memray: tuple[Path, str], start: Callable[[Path], str], http: Any, eventually: Any
) -> None:
    python, version = other_memray
    monitor = start(python)
    begun = http(f"{monitor}/debug/memory/captures", "POST", {"kind": "memray", "seconds": 1, "force": True})
    assert begun.status == 202, begun.json()
    address = f"{monitor}/debug/memory/captures/{begun.json()['id']}"
    capture = eventually(lambda: (found := http(address).json())["state"] in ("done", "failed") and found, 90)
    assert capture["state"] == "done", capture["error"]
    names = {artifact["name"] for artifact in capture["artifacts"]}
    assert {"capture.bin", "profile.json", "profile.pb.gz", "flame.html"} <= names
    assert leak_of(http(f"{address}/artifacts/profile.json").json()) > 100_000
    assert any(f"the service has memray {version}" in note for note in capture["result"]["not_covered"])


def test_pprof_takes_the_other_tracer_where_nobody_can_read_memrays_file_and_no_window_is_paid_for(
    other_memray: tuple[Path, str], start: Callable[[Path], str], http: Any
) -> None:
    python, version = other_memray
    # The service runs by an interpreter that is no longer where it says: a container's, or one that was replaced.
    moved = python.with_name("moved-python")
    moved.symlink_to("python")
    monitor = start(moved)
    moved.unlink()
    refused = http(f"{monitor}/debug/memory/captures", "POST", {"kind": "memray", "seconds": 1, "force": True})
    error = refused.json()["error"]
    assert (refused.status, error["code"]) == (422, "memray_unreadable")
    assert f"the service has memray {version}" in error["message"]
    assert "tracemalloc" in error["remedy"]
    assert http(f"{monitor}/debug/memory/captures").json() == {"captures": []}
    heap = http(f"{monitor}/debug/pprof/heap?seconds=1&force=1")
    assert heap.status == 200, heap.body
    profile = pprof.decode(heap.body)
    assert any("memray" in note and "this is tracemalloc's" in note for note in profile.not_covered)
    assert leak_of(profile.to_json()) > 100_000
