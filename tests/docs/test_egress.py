"""The commands of docs/egress.md, in their order: a service, a capture, and its way to a real S3 server and back."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import S3, manifest_of

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "egress.md").read_text(encoding="utf-8")
APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_a_capture_goes_to_the_store_and_comes_back(
    launch: Callable[..., Any], s3: S3, http: Any, eventually: Any, free_port: Any, tmp_path: Path
) -> None:
    pip, run, *others = commands()
    assert pip[:2] == ["pip", "install"]
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    bucket = s3.bucket()
    environment = {**s3.environment(), "DIAGNOSTICS_DIR": str(tmp_path / "dir")}
    names = {"s3://evidence": f"s3://{bucket}", "8000": str(free_port())}
    setting, program, *words = replaced(run, names)
    name, _, value = setting.partition("=")
    assert (name, program) == ("DIAGNOSTICS_EGRESS_URL", "diagnostics")
    at = words.index("--")
    python = [sys.executable if word == "python" else word for word in words[at:]]
    service = launch(
        sys.executable, "-m", program, *words[:at], "--listen", "127.0.0.1:0", *python,
        env={**environment, name: value}, cwd=tmp_path,
    )  # fmt: skip
    monitor = service.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    eventually(
        lambda: [each for each in http(f"{monitor}/debug/memory").json()["workers"] if each["state"] == "answering"]
    )
    names["http://127.0.0.1:6060"] = monitor
    ran = []
    for program, *words in others:
        assert program == "diagnostics"
        done = subprocess.run(
            [sys.executable, "-m", program, *replaced(words, names)],
            check=False, capture_output=True, encoding="utf-8", timeout=250, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert done.stdout, words
        ran.append(words[0])
        if words[0] == "capture":
            captures = f"{monitor}/debug/memory/captures"
            eventually(lambda url=captures: http(url).json()["captures"][0]["egress"]["state"] == "sent")
            (key,) = [each for each in s3.keys(bucket) if each.endswith("/manifest.json")]
            _, names["SERVICE"], names["HOST"], names["ID"], _ = key.split("/")
            manifest = manifest_of(s3, bucket, key)
            assert (manifest["kind"], manifest["by"], manifest["worker"]) == ("tasks", "a request", "0")
            assert manifest["versions"]["python"]
            assert "uvicorn" in manifest["command"]
    assert ran == ["capture", "fetch", "fetch", "top", "top", "flamegraph"]
    here, there = tmp_path / "captures" / names["ID"], tmp_path / "fetched" / names["ID"]
    assert sorted(path.name for path in there.iterdir()) == sorted(
        [*(path.name for path in here.iterdir()), "manifest.json"]
    )
    for path in here.iterdir():
        assert path.read_bytes() == (there / path.name).read_bytes()


def replaced(words: list[str], names: dict[str, str]) -> list[str]:
    """The words with what this test has in place of what the page says."""
    text = "\0".join(words)
    for name, value in names.items():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", value, text)
    return text.split("\0")
