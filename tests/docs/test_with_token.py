"""The commands of docs/deploy and the runbooks, typed with the token that the manifests require, and without it.

The monitor has what the manifest gives its container: both tokens, and the pod's address as the only allowed host beside
loopback. Each form of a command is run once (a command with the names of its options); a capture of tasks stands for all
kinds, because the request is the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "deploy" / "README.md", *sorted((DOCS / "runbooks").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
MONITOR = "http://127.0.0.1:6060"
COMMANDS = re.findall(rf"(?<![\w`])diagnostics (\w+) {MONITOR}([^\n`|]*)", TEXT)
PATHS = sorted(set(re.findall(rf"curl -s {MONITOR}(/\S*)", TEXT)))

SERVICE = """
import asyncio
async def main():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    await server.serve_forever()
asyncio.run(main())
"""
TOKEN, READ_TOKEN = "t" * 32, "r" * 32


class Watched(NamedTuple):
    """A monitor that requires a token; `type`: runs a command of the documentation against it, returns (exit code, output)."""

    url: str
    type: Callable[..., tuple[int, str]]


@pytest.fixture
def watched(launch: Callable[..., Any], eventually: Callable[..., Any], http: Any, tmp_path: Path) -> Iterator[Watched]:
    given = {
        "DIAGNOSTICS_TOKEN": TOKEN, "DIAGNOSTICS_READ_TOKEN": READ_TOKEN, "DIAGNOSTICS_ALLOWED_HOSTS": "10.1.2.3",
        "DIAGNOSTICS_DIR": str(tmp_path / "dir"),
    }  # fmt: skip
    command = [sys.executable, "-m", "diagnostics"]
    started = launch(*command, "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", SERVICE, env=given)
    url = started.wait_for("diagnostics http").split()[1].removesuffix("/debug/memory")
    reader = {"Authorization": f"Bearer {READ_TOKEN}"}

    def answering() -> bool:
        workers = http(f"{url}/debug/memory", headers=reader).json()["workers"]
        return [worker["state"] for worker in workers] == ["answering"]

    eventually(answering)

    def typed(*words: str, **env: str) -> tuple[int, str]:
        typing = launch(*command, words[0], url, *words[1:], env=env, cwd=tmp_path)
        return typing.end(0), typing.output

    yield Watched(url, typed)
    started.end()


def forms() -> list[list[str]]:
    """One command of each form."""
    found: dict[tuple[str, ...], list[str]] = {}
    for command, rest in COMMANDS:
        options = re.sub(r"--kind \w+", "--kind tasks", re.sub(r"--seconds \d+", "--seconds 1", rest)).split()
        found[(command, *(word for word in options if word.startswith("-")))] = [command, *options]
    return list(found.values())


def test_what_is_told_to_type_needs_the_token_and_works_with_it(watched: Watched, http: Any) -> None:
    assert {words[0] for words in forms()} == {"status", "capture"}
    for words in forms():
        code, output = watched.type(*words, DIAGNOSTICS_TOKEN=TOKEN)
        assert code == 0, (words, output)
    for path in PATHS:
        bearer = {"Authorization": f"Bearer {READ_TOKEN}"}
        assert (http(watched.url + path).status, http(watched.url + path, headers=bearer).status) == (401, 200), path
    code, output = watched.type("status", DIAGNOSTICS_READ_TOKEN=READ_TOKEN)  # as `kubectl debug --env=` gives it
    assert code == 0, output
    capture = next(words for words in forms() if words[0] == "capture")
    code, output = watched.type(*capture, DIAGNOSTICS_READ_TOKEN=READ_TOKEN)
    assert (code, "DIAGNOSTICS_TOKEN" in output) == (2, True), output


def test_every_place_that_asks_a_monitor_says_where_its_token_goes() -> None:
    assert len(COMMANDS) > 10
    assert len(PATHS) >= 3
    for page in (DOCS / "deploy" / "README.md", DOCS / "runbooks" / "README.md"):
        assert "export DIAGNOSTICS_TOKEN=" in page.read_text(encoding="utf-8")
