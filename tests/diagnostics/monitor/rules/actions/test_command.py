"""A command: what it is given, what it is not, and that it ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import TargetError
from diagnostics.monitor.rules.actions.command import call
from diagnostics.monitor.rules.actions.messages import Facts
from diagnostics.monitor.rules.rule import Command

FACTS = Facts(
    delivery="0123456789abcdef", rule="ratio", says="rss_bytes > 5 for 1 s: 7", trigger="when", value=7.0, bound=5.0,
    worker="0", pid=17, time=1_800_000_000.25, host="pod-1",
)  # fmt: skip

TELL = """
import json, os, resource, sys
told = {"stdin": json.load(sys.stdin), "argv": sys.argv[1:], "env": sorted(os.environ), "cwd": os.getcwd(),
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0], "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "session": os.getsid(0) == os.getpid(),
        "files": sorted(os.listdir("/proc/self/fd"))}
open(sys.argv[1], "w", encoding="utf-8").write(json.dumps(told))
"""


def python(source: str, *words: str, **more: Any) -> Command:
    return Command((sys.executable, "-c", source, *words), **more)


def test_it_gets_the_firing_and_its_words_as_they_are_and_nothing_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIAGNOSTICS_TOKEN", "secret")
    monkeypatch.setenv("PAGER_TEAM", "core")
    out = tmp_path / "told.json"
    asyncio.run(call(python(TELL, str(out), "$(id); a b", timeout=60, env=("PAGER_TEAM", "NOT_SET")), FACTS))
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["stdin"] == FACTS.to_json()
    assert told["argv"] == [str(out), "$(id); a b"]
    assert set(told["env"]) - {"LC_CTYPE"} <= {"PATH", "HOME", "LANG", "TZ", "PAGER_TEAM"}
    assert "PAGER_TEAM" in told["env"]
    assert (told["cpu"], told["memory"], told["core"]) == (60, 512 * 1024**2, 0)
    assert told["session"]
    assert told["cwd"] == "/"
    assert told["files"] == ["0", "1", "2", "3"]  # the last is the listing's own


def test_what_fails_is_told_and_its_words_are_for_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    source = r"import sys; sys.stderr.write('no route\n\x1b[2J' + 9000 * 'x'); sys.exit(3)"
    with pytest.raises(TargetError, match="ended with 3; look at what it said") as caught:
        asyncio.run(call(python(source, timeout=60), FACTS))
    assert "no route" not in str(caught.value)
    assert "said: no route" in caplog.text
    assert len(caplog.text) < 1500
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("argv", [("/nonexistent/program",), ("/etc/passwd",)])
def test_what_is_no_program_fails(argv: tuple[str, ...]) -> None:
    with pytest.raises(TargetError, match=f"{argv[0]} ended with 1"):
        asyncio.run(call(Command(argv, timeout=60), FACTS))


FORKS = """
import os, sys, time
child = os.fork()
if child == 0:
    time.sleep(600)
open(sys.argv[1], "w").write(str(child))
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Ended; a zombie that nobody has waited for yet counts."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def test_at_its_deadline_it_is_killed_with_all_that_it_started(tmp_path: Path, eventually: Any) -> None:
    out = tmp_path / "child"
    # The time is over once it has said who its child is, however slow the machine.
    command = python(FORKS, str(out), timeout=300)

    async def until_it_says() -> None:
        calling = asyncio.create_task(call(command, FACTS))
        while not (out.exists() and out.read_text(encoding="utf-8")):
            await asyncio.sleep(0.01)
        calling.cancel()
        await asyncio.wait([calling])

    asyncio.run(until_it_says())
    child = int(out.read_text(encoding="utf-8"))
    eventually(lambda: gone(child))
    with pytest.raises(TargetError, match=r"had not ended after 0\.3 s, and was killed"):
        asyncio.run(call(python("import time; time.sleep(600)", timeout=0.3), FACTS))


def test_one_that_is_given_up_while_it_starts_is_killed_with_all_that_it_started(
    tmp_path: Path, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it may have children before asyncio hands it over."""
    out = tmp_path / "child"
    create = asyncio.create_subprocess_exec

    async def creates_late(*words: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*words, **options)
        while not (out.exists() and out.read_text(encoding="utf-8")):
            await asyncio.sleep(0.01)
        calling.cancel()
        await asyncio.sleep(0.01)
        return process

    async def scene() -> None:
        nonlocal calling
        calling = asyncio.create_task(call(python(FORKS, str(out), timeout=300), FACTS))
        await asyncio.wait([calling])

    calling: Any = None
    monkeypatch.setattr(asyncio, "create_subprocess_exec", creates_late)
    asyncio.run(scene())
    assert calling.cancelled()
    child = int(out.read_text(encoding="utf-8"))
    eventually(lambda: gone(child))


def test_memory_has_a_limit() -> None:
    source = "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    raise SystemExit(7)"
    with pytest.raises(TargetError, match="ended with 7"):
        asyncio.run(call(python(source, timeout=60, memory=256 * 1024**2), FACTS))


def test_input_that_it_does_not_read_does_no_harm() -> None:
    asyncio.run(call(Command(("/bin/true",), timeout=60), FACTS))


def test_it_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(call(Command(("/bin/true",), timeout=60), FACTS))
    assert len(os.listdir("/proc/self/fd")) == before
