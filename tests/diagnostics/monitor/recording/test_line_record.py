"""The recorder's looks at the live heap of a real process: what they tell, what is left of them, and that they do not grow."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import diagnostics
from diagnostics.agent.heap import extension, layout
from diagnostics.analysis.heap import HeapTable
from diagnostics.analysis.lines.growth import History
from diagnostics.analysis.lines.lives import pooled
from diagnostics.analysis.profile import Frame
from diagnostics.errors import UsageError
from diagnostics.monitor.recording import line_record, live_heap
from diagnostics.monitor.recording.line_record import (
    LineRecord,
    history_of,
    line_life_beside,
    line_life_file,
    lines_file,
)

PACKAGE = Path(diagnostics.__file__).parent
# Each line that it reads is an order: so many blocks more.
PROGRAM = """
import os, sys
from diagnostics.agent import heap

why = heap.begin() or heap.keep(os.environ["DIAGNOSTICS_DIR"])
assert why is None, why
kept = []

def leaks(count):
    kept.append([bytes(20_000) for _ in range(count)])

fixed = [bytes(20_000) for _ in range(200)]
print(os.getpid(), flush=True)
for line in sys.stdin:
    leaks(int(line))
    print("done", flush=True)
"""


class Service:
    """A process with a live heap, as the recorder sees a worker."""

    def __init__(self, root: Path) -> None:
        if layout.why_not() is not None or extension() is None:
            pytest.skip(layout.why_not() or "the extension of the live heap is not built")
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            env={
                "PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parent), "DIAGNOSTICS_DIR": str(root),
                "DIAGNOSTICS_HEAP": "on", "DIAGNOSTICS_HEAP_RATE": "16384",
            },
        )  # fmt: skip
        self._answer()
        self.worker: Any = SimpleNamespace(
            pid=self.process.pid, name="0", socket=root / "agents" / f"{self.process.pid}.sock"
        )

    def grow(self, blocks: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{blocks}\n")
        self.process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def table(self) -> HeapTable:
        found = live_heap.of_worker(self.worker)
        assert found is not None
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    found = Service(tmp_path / "dir")
    yield found
    found.end()


# Blocks count from a fifth of a second on, and a look is due each tenth: tables tell tenths.
INTERVAL = 0.02


def record(service: Service, file: Path | None) -> LineRecord:
    return LineRecord(lambda: [service.worker], INTERVAL, lambda pid: file)


async def looks(record: LineRecord, service: Service, *, rounds: int = 12, blocks: int = 40) -> History:
    """Grow and look in turn; what is known in the end."""
    await asyncio.sleep(0.4)  # what was made at the start counts from the first look on
    for _ in range(rounds):
        service.grow(blocks)
        record._due.clear()  # however long the last look took
        await record.look()
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)  # until the last blocks count
    record._due.clear()
    await record.look()
    found = record.history(service.worker.pid)
    assert found is not None
    return found


def test_a_line_that_leaks_is_told_from_looks_at_its_table(service: Service, tmp_path: Path) -> None:
    found = asyncio.run(looks(record(service, None), service)).since(0.0)
    assert found is not None
    first = found[1][0]
    assert (first.frame.function, first.frame.line) == (
        "leaks.<locals>.<listcomp>" if sys.version_info < (3, 12) else "leaks",
        10,
    )
    assert first.low <= 12 * 40 * 20_033
    assert first.high > 8 * 40 * 20_033  # all but what the first look already counted
    assert first.low > 0
    assert not any("agent" in row.frame.file for row in found[1])
    fixed = [row for row in found[1] if row.frame.line == 12]
    assert all(row.low <= 0 <= row.high for row in fixed)


def test_what_was_seen_is_left_for_who_comes_after_and_taken_up_by_the_next_monitor(
    service: Service, tmp_path: Path
) -> None:
    ring = tmp_path / "box" / "x.ring"
    ring.parent.mkdir()
    first = record(service, ring)
    before = asyncio.run(looks(first, service)).since(0.0)
    assert before is not None
    first.close()
    assert lines_file(ring).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in ring.parent.iterdir()] == ["x.lines"]

    second = record(service, ring)
    asyncio.run(second.look())
    known = second.history(service.worker.pid)
    assert known is not None
    assert known.looks[0].at == pytest.approx(before[0].at, abs=0.2)
    after = known.since(0.0)
    assert after is not None
    assert after[1][0].name == before[1][0].name

    table = service.table()
    service.end()
    left = history_of(ring, table)
    assert left is not None
    gained = left.since(0.0)
    assert gained is not None
    assert gained[1][0].name == before[1][0].name
    assert gained[1][0].low > 0


def test_the_lives_of_a_worker_tell_their_line_together(tmp_path: Path) -> None:
    """Processes one after the other, each with a table of its own; their looks are kept until their end is noticed."""
    lives = []
    for _ in range(3):
        service = Service(tmp_path / "dir")
        workers = [service.worker]
        kept = LineRecord(lambda listed=workers: listed, INTERVAL, lambda pid: None)  # type: ignore[misc]
        try:
            asyncio.run(looks(kept, service))
        finally:
            service.end()
        workers.clear()  # no worker any more, before anybody noticed its end
        asyncio.run(kept.look())
        assert kept.history(service.process.pid) is None
        lives.append(kept.ended(service.process.pid))
        assert kept.ended(service.process.pid) is None
    assert None not in lives
    rows = pooled([life for life in lives if life is not None])
    assert rows[0].frame.line == 10
    assert rows[0].lives == 3
    assert 0 < rows[0].low < 3 * 12 * 40 * 20_033
    assert rows[0].held == 0  # none of them lives
    assert all(row.low <= 0 <= row.high for row in rows if row.frame.line == 12)


def test_what_a_life_gained_is_left_for_the_next_monitor(service: Service, tmp_path: Path) -> None:
    ring = tmp_path / "x.ring"
    kept = record(service, ring)
    asyncio.run(looks(kept, service))
    service.end()
    life = kept.ended(service.process.pid)
    assert life is not None
    assert line_life_file(ring).stat().st_mode & 0o777 == 0o600
    assert line_life_beside(ring) == life
    assert line_life_beside(tmp_path / "y.ring") is None  # that worker kept no live heap


def test_a_damaged_life_is_not_known_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring = tmp_path / "x.ring"
    line_life_file(ring).write_text("{", encoding="utf-8")
    assert line_life_beside(ring) is None
    assert "what lines gained in an earlier life is not known" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "damaged lines"), ("x" * 5_000_000, "larger than any"), ("\udcff", "not UTF-8")],
    ids=["cut off", "large", "bytes"],
)
def test_a_damaged_file_says_so_and_is_begun_anew(service: Service, tmp_path: Path, text: str, says: str) -> None:
    ring = tmp_path / "x.ring"
    lines_file(ring).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=says):
        history_of(ring, service.table())
    fresh = record(service, ring)
    asyncio.run(fresh.look())
    fresh.close()
    assert history_of(ring, service.table()) is not None


def test_where_nothing_was_written_or_of_another_process_nothing_is_known(service: Service, tmp_path: Path) -> None:
    ring = tmp_path / "x.ring"
    assert history_of(ring, service.table()) is None
    lines_file(ring).write_text(
        '{"schema":"highwater.lines/1","pid":1,"started":1.0,"lasting":10.0,"lines":[],"looks":[[1,1,0,0,[],[]]]}',
        encoding="utf-8",
    )
    assert history_of(ring, service.table()) is None


def test_a_disk_without_room_is_told_once_and_looks_go_on(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(line_record, "_WRITE_SECONDS", 0.0)
    found = asyncio.run(looks(record(service, tmp_path / "missing" / "x.ring"), service, rounds=3))
    assert found.looks
    assert [message for message in caplog.messages if "kept in memory only" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_day_of_looks_takes_memory_that_does_not_grow(service: Service) -> None:
    track = line_record._LineTrack(service.table(), 10.0)
    blocks, look = line_record._seen(service.table(), track.names, 0.0, 10.0)
    for number in range(20_000):
        track.add(blocks, replace(look, at=5.0 * number, time=5.0 * number))
    kept = track.looks()
    assert len(kept) <= 180 + 1440
    ages = [5.0 * 19_999 - each.at for each in kept]
    assert ages == sorted(ages, reverse=True)
    assert ages[0] > 80_000


def test_a_worker_without_a_live_heap_is_asked_seldom_and_tells_nothing(tmp_path: Path) -> None:
    worker: Any = SimpleNamespace(pid=os.getpid(), name="0", socket=tmp_path / "agents" / "1.sock")
    none = LineRecord(lambda: [worker], 1.0, lambda pid: None)

    async def main() -> None:
        await none.look()
        due = none._due[worker.pid]
        await none.look()
        assert none._due[worker.pid] == due > time.monotonic() + 1
        assert none.history(worker.pid) is None
        assert await none.gained(worker.pid, 0.0) is None

    asyncio.run(main())


def test_the_files_that_are_ours_are_told_by_their_place_in_the_package() -> None:
    is_ours: Callable[[Frame], bool] = line_record.is_ours
    assert is_ours(Frame("run", "/anywhere/diagnostics/agent/endpoint.py", 1))
    assert is_ours(Frame("run", str(PACKAGE / "protocol.py"), 1))
    assert not is_ours(Frame("run", "/srv/diagnostics/agent/of_ours.py", 1))
    assert not is_ours(Frame("run", "/srv/diagnostics/proof/app.py", 1))
    assert not is_ours(Frame("run", "/srv/app.py", 1))
