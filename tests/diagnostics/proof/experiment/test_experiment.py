"""An experiment judges memory only where the subject did its work; what it started is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from diagnostics.analysis.decision import Decision, Measure
from diagnostics.analysis.growth import Reading, Round
from diagnostics.errors import BusyError, TargetError, TargetSilentError
from diagnostics.proof.clients.load import LoadReport
from diagnostics.proof.experiment.experiment import RESIDENT_ROOM_BYTES, SideOutcome, least_of, run
from diagnostics.proof.experiment.rounds import Measured, Rounds
from diagnostics.proof.experiment.served import check_load
from diagnostics.proof.scenario import Scenario
from diagnostics.proof.scenarios import scenario
from diagnostics.proof.subjects.processes import Process, free_port, start, wait_for_listener
from diagnostics.proof.subjects.sockets import connections, send_queues
from diagnostics.proof.subjects.subject import Launch, subject

UNBOUNDED = scenario("unbounded_buffer")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def report(**outcomes: int) -> LoadReport:
    return LoadReport(streams=sum(outcomes.values()), outcomes=Counter(outcomes), errors=Counter(status_500=9))


def test_a_service_that_answers_errors_is_no_bounded_service() -> None:
    with pytest.raises(TargetError, match=r"fixed app failed 7 of 8 streams \(9 x status_500\)"):
        check_load(report(failed=7, time_up=1), "fixed", UNBOUNDED, "    | Traceback")


def test_a_service_that_drops_its_clients_is_no_bounded_service() -> None:
    with pytest.raises(TargetError, match="4 x ended_early"):
        check_load(report(completed=4, time_up=4), "fixed", UNBOUNDED, "")


def test_a_service_that_serves_is_judged() -> None:
    check_load(report(time_up=8), "fixed", UNBOUNDED, "")


def test_a_service_that_sends_nothing_is_no_bounded_service() -> None:
    with pytest.raises(TargetError, match="sent 0 events to 8 open streams"):
        check_load(report(time_up=8), "fixed", UNBOUNDED, "", open_streams=8)


def test_turning_clients_away_and_ending_streams_is_a_failure_but_where_it_is_the_fix() -> None:
    with pytest.raises(TargetError, match="failed 28 of 32 streams"):
        check_load(report(rejected=28, time_up=4), "fixed", UNBOUNDED, "")
    check_load(report(rejected=28, time_up=4), "fixed", scenario("no_admission"), "")
    check_load(report(completed=64, time_up=8), "fixed", scenario("unterminated_event"), "")


def started(tmp_path: Path, code: str, then: str) -> Process:
    """Run `code` in a process and wait for its listener or for a line of its output."""

    async def main() -> Process:
        port = free_port()
        async with start("app", [sys.executable, "-c", code, str(port)], output=tmp_path / "log") as process:
            if then == "listens":
                await wait_for_listener(process, port, 5 if "exit" in code else 0.6)
            else:
                await process.line(then, 5)
        return process

    return asyncio.run(main())


def test_a_subject_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"(?s)ended with exit code 7.*no such database") as caught:
        started(tmp_path, "print('no such database'); raise SystemExit(exit := 7)", "listens")
    assert caught.value.exit_code == 3


def test_a_subject_that_is_killed_is_told_why_that_may_be(tmp_path: Path) -> None:
    kill = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(TargetError, match=r"SIGKILL \(the kernel sends it where memory runs out\)"):
        started(tmp_path, kill, "listens")
    # Below `diagnostics run` and below a shell it is an exit code.
    with pytest.raises(TargetError, match=r"ended with signal SIGKILL"):
        started(tmp_path, "raise SystemExit(137)", "listens")


def test_a_subject_that_never_listens_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(TargetSilentError, match=r"(?s)does not listen on port.*waiting for the moon"):
        started(tmp_path, "import time; print('waiting for the moon'); time.sleep(60)", "listens")


def test_a_process_is_ended_with_its_children_even_those_in_sessions_of_their_own(tmp_path: Path) -> None:
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
print("children", *(child.pid for child in children), flush=True)
time.sleep(60)
"""
    process = started(tmp_path, code, r"^children (\d+) (\d+)$")
    pids = [int(word) for word in process.output.read_text(encoding="utf-8").split()[1:3]]
    deadline = time.monotonic() + 60
    while any(map(alive, [process.pid, *pids])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in [process.pid, *pids] if alive(pid)]


def test_a_cancelled_wait_leaves_no_process(tmp_path: Path) -> None:
    seen: list[int] = []

    async def main() -> None:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        async with start("app", command, output=tmp_path / "log") as process:
            seen.append(process.pid)
            await asyncio.sleep(60)

    async def interrupted() -> None:
        task = asyncio.create_task(main())
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert not alive(seen[0])


def test_an_app_that_cannot_be_imported_fails_with_its_traceback(tmp_path: Path) -> None:
    """Through `diagnostics run`, as in an experiment."""

    async def main() -> None:
        command = [sys.executable, "-m", "diagnostics.proof.subjects.serve", "no_such_module:app", "--port", "{port}"]
        environment = {"UPSTREAM_BASE_URL": "http://127.0.0.1:1/v1"}
        async with subject("broken", Launch(command, environment), folder=tmp_path) as one:
            await one.ready()

    with pytest.raises(TargetError, match=r"(?s)broken app ended with.*no_such_module"):
        asyncio.run(main())


class Explained:
    """Rounds of a service whose figures are known, and which nobody can look into."""

    def __init__(self, remains: Sequence[float], failing: Exception) -> None:
        self._remains = list(remains)
        self._failing = failing
        self.widened = 0

    async def warm_up(self, side: str) -> None:
        pass

    async def measure(self, side: str) -> Measured:
        at_rest = Reading(1.0, 1000, 1000, 1, 3)
        stays = self._remains.pop(0)
        figures = {Measure.GROWTH: 1.0, Measure.REMAINS: stays, Measure.RESIDENT: stays}
        return Measured(figures, LoadReport(), 10.0, Round(0.0, 8, 8, at_rest, (at_rest,), at_rest))

    def widen(self, side: str) -> None:
        self.widened += 1

    async def capture(self, side: str, decision: Decision) -> None:
        raise self._failing

    async def balance(self, side: str) -> dict[str, int]:
        raise self._failing


def decided(rounds: Explained) -> SideOutcome:
    @asynccontextmanager
    async def bench(known: Scenario, sides: Sequence[str], seed: int) -> AsyncGenerator[Rounds, None]:
        yield rounds

    outcome = asyncio.run(run(UNBOUNDED, ["broken"], seed=7, capture=True, watch=Unwatched(), bench=bench))
    return outcome.sides[0]


class Unwatched:
    def doing(self, what: str, step: int, steps: int) -> None:
        pass

    def measured(self, side: str, number: int, figures: Mapping[Measure, float], peak: float | None) -> None:
        pass


@pytest.mark.parametrize(
    "failing",
    [TargetSilentError("the capture /captures/1 is still tracing after 90 s"), BusyError("a capture is running")],
)
def test_what_explains_takes_no_decision_away(failing: Exception) -> None:
    side = decided(Explained([9e6] * 4, failing))
    assert side.decision is Decision.LEAK
    assert side.unexplained == side.unweighed == str(failing)
    assert side.capture is None
    assert side.balances == []


def test_what_a_look_leaves_open_gets_more_streams() -> None:
    rounds = Explained([9e6, -9e6, 1e6, 3e6, 5.0, 5.0, 5.0, 5.0], BusyError("a capture is running"))
    assert decided(rounds).decision is Decision.INCONCLUSIVE
    assert rounds.widened == 2


def test_resident_memory_is_judged_with_room_and_stands_alone_where_bytes_in_use_are_unknown() -> None:
    at_rest = Reading(1.0, 1000, 1000, 1, 3)
    side = SideOutcome("fixed", "app", Decision.BOUNDED, rounds=[Round(0.0, 8, 64, at_rest, (), at_rest)] * 2)
    least = least_of(UNBOUNDED, side)
    assert least[Measure.RESIDENT] == UNBOUNDED.least[Measure.REMAINS] + RESIDENT_ROOM_BYTES / 64
    assert Measure.REMAINS in least
    side.read = "rss"
    assert set(least_of(UNBOUNDED, side)) == {Measure.GROWTH, Measure.RESIDENT}


def test_open_connections_are_counted_by_their_port(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    rows = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 11 1 0 100 0 0 10 0",
        "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  0 0 12 1 0 100 0 0 10 0",
        "   2: 0100007F:1F90 0100007F:D432 08 00000000:00000000 00:00000000 00000000  0 0 13 1 0 100 0 0 10 0",
        "   3: 0100007F:1F90 0100007F:D433 06 00000000:00000000 00:00000000 00000000  0 0 0 1 0 100 0 0 10 0",
        "   4: 0100007F:1F91 0100007F:D434 01 00000000:00000000 00:00000000 00000000  0 0 14 1 0 100 0 0 10 0",
        "   5: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  0 0 15 1 0 100 0 0 10 0",
    ]
    rows.append(rows[2].replace("1:", "6:", 1))  # the kernel prints the table in pieces, and may print one twice
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert connections(8080, table) == 2
    rows[3] = rows[3].replace("00000000:00000000 00:", "00010000:00000000 00:", 1)
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert send_queues(8080, table) == 65_536
    assert send_queues(8081, table) == 0
    assert os.path.exists("/proc/net/tcp")
    assert connections(free_port()) == 0
