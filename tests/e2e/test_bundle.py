"""`diagnostics capture --kind bundle` of a live service: everything is in the folder, in the archive, and in the report."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SOURCE = (Path(__file__).parent / "growing" / "app.py").read_text(encoding="utf-8")


def test_a_bundle_holds_all_captures_with_their_sums(observed: Callable[..., Any], tmp_path: Path) -> None:
    service = observed(SOURCE, env={"KEEP": "50000"})
    command = [sys.executable, "-m", "diagnostics", "capture", service.monitor, "--kind", "bundle", "--seconds", "1"]
    command += ["--force", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    page, packed = map(Path, done.stdout.split())
    folder = page.parent
    assert {path.name for path in folder.iterdir()} == {
        "SHA256SUMS", "memray", "metrics.txt", "objects", "report.html", "report.md", "retained", "status.json", "tasks",
        "tracemalloc",
    }  # fmt: skip
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    with tarfile.open(packed) as archive:
        packed_names = {member.name for member in archive if member.isfile()}
    assert packed_names == {f"{folder.name}/{name}" for name in files}
    states = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    assert states[0]["workers"][0]["state"] == "answering"
    assert len(states) > 3
    assert "memory_rss_bytes" in (folder / "metrics.txt").read_text(encoding="utf-8")
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "tracemalloc: " in report
    assert "memray: " in report


def test_without_a_monitor_nothing_is_written(free_port: Callable[[], int], tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "diagnostics", "capture", address, "--kind", "bundle", "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=250, check=False)
    assert done.returncode == 3
    assert "no monitor answers" in done.stderr
    assert not (tmp_path / "out").exists()
