"""The benchmark's own arithmetic: what it divides by what, and that it says no where a target is missed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent / "bench"


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCH))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"sidebyside.{name}")

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] == "sidebyside"]:
        del sys.modules[name]


def test_events_are_counted_between_two_looks(of) -> None:
    report = {"bucket_seconds": 0.5, "timeline": [10, 20, 0, 40]}
    arrived = of("measure").arrived
    assert arrived(report, 0.0) == 0
    assert arrived(report, 0.25) == 5
    assert arrived(report, 1.0) == 30
    assert arrived(report, 1.75) == 50
    assert arrived(report, 60.0) == pytest.approx(70, rel=0.01)


def test_a_target_is_missed_met_and_not_judged(of) -> None:
    def paced(cpu: float, delivered: float = 1.0) -> dict[str, float]:
        return {"sum_us": cpu, "delivered": delivered, "exact": 1.0, "load_average": 1.5}

    judged = of("targets").judged

    def line(relay: list[dict[str, float]]) -> str:
        results = {("relay", "paced"): relay, ("bare", "paced"): [paced(40.0), paced(50.0), paced(60.0)]}
        return next(line for line in judged(results).splitlines() if "to bare" in line)

    # By the ratio within each round, not by the ratio of medians.
    assert line([paced(36.0), paced(50.0), paced(90.0)]).endswith("| 1.00 [0.90 .. 1.50] | 1.5 | yes |")
    assert line([paced(44.0), paced(55.0), paced(66.0)]).endswith("| 1.10 | 1.5 | **no** |")
    assert "not judged: 50%" in line([paced(36.0), paced(45.0, delivered=0.5), paced(54.0)])
    assert judged({}) == ""


def test_a_storm_in_which_some_stream_never_had_an_event_is_no_late_one(of) -> None:
    def judged(relay: float, bare: float) -> str:
        results = {
            ("relay", "storm"): [{"first_all": relay, "delivered": 0.5}],
            ("bare", "storm"): [{"first_all": bare, "delivered": 0.5}],
        }
        return next(line for line in of("targets").judged(results).splitlines() if "first event, to bare" in line)

    never = float("inf")
    assert judged(2.0, 4.0).endswith("| 0.50 |  | yes |")
    assert judged(never, 4.0).endswith("| none |  | **no** |")
    assert "not judged" in judged(never, never)


def test_the_tables_of_a_data_file_are_those_of_the_run(of, tmp_path: Path) -> None:
    report, cases = of("report"), of("cases").CASES
    runs = [
        {"cpu_us": 10.0, "monitor_us": 1.0, "sum_us": 11.0, "latency_p50": float("nan"), "harness_bound": False},
        {"cpu_us": 20.0, "monitor_us": 2.0, "sum_us": 22.0, "latency_p50": float("nan"), "harness_bound": True},
    ]
    results = {("relay", "paced"): runs, ("bare", "paced"): [{**run, "sum_us": 10.0} for run in runs]}
    found = report.data(results, {name: cases[name] for name in ("paced", "burst")}, ["bare", "relay"], "a machine")
    file = tmp_path / "figures.json"
    of("writing").write_data(file, found)
    shown = report.show(file, ["paced"])
    assert (
        "| relay | 15.00 [10.00 .. 20.00] | 1.50 [1.00 .. 2.00] | 16.50 [11.00 .. 22.00] | none | harness-bound |"
        in shown
    )
    assert "sum_us of relay to bare: 1.650 [1.100 .. 2.200]" in shown
    assert shown.startswith("a machine\n")
    with pytest.raises(SystemExit, match="has no case burst; it has paced"):
        report.show(file, ["burst"])


LOG = """\
==7== Callgrind
**7** on
current-tid: 1
events-1: 1000
**7** enter\t/app/relay/client/connection.py\tread
current-tid: 1
events-1: 1010
**7** enter\t/usr/lib/python3/json/decoder.py\tdecode
current-tid: 1
events-1: 1110
**7** leave
events-1: 1310
**7** enter\t/app/relay/stream/life.py\tStreamLife.run
current-tid: 1
events-1: 1320
function-1-0: main
events-1-0: 99999
**7** leave
current-tid: 1
events-1: 1820
**7** leave
current-tid: 1
events-1: 1840
**7** off
current-tid: 1
events-1: 1850
**7** leave
current-tid: 1
events-1: 9999
"""


def test_an_instruction_belongs_to_the_innermost_frame_and_that_to_its_files_part(of) -> None:
    parts = of("parts")
    (one,) = parts.spent(parts.read(LOG.splitlines()))
    found = parts.median([one, one, one], {}, a_frame=10.0)
    # What the standard library does is its caller's; what a note adds is off.
    assert found.of_part("accept, parse, reply") == (100 + 200 + 10 + 20 - 2 * 10, 2)
    assert found.of_part("stream, events") == (500 - 10, 1)
    assert found.of_part(parts.LOOP) == (10 + 10, 0)
    # What the clock calls is nobody's, and neither is the turn of the loop that it takes.
    ((root, idle),) = [each for each in one.items() if each[0][0] != parts.LOOP]
    nothing = parts.median([one], {root: idle, **{each: one[each] for each in one if each != root}}, a_frame=10.0)
    assert nothing.total() == (0, 0)


@pytest.mark.needs("valgrind", "valgrind")
def test_each_frame_of_a_process_is_noted_under_callgrind(of, tmp_path: Path) -> None:
    by_part, parts = of("by_part"), of("parts")
    library = tmp_path / "frames.so"
    by_part.compile_frames(library)
    arguments = [str(by_part.FRAMES / "run.py"), str(library), str(by_part.SWITCH), "calls", "50", str(by_part.SWITCH)]
    (one,) = parts.spent(parts.read(by_part.callgrind(tmp_path, arguments).splitlines()))
    calls = {function.partition(" ")[0]: count for time in one.values() for (_, function), count in time.calls.items()}
    assert calls == {"many": 1, "nothing": 50}
    each = [
        time.instructions[function]
        for time in one.values()
        for function in time.instructions
        if "nothing" in function[1]
    ]
    assert 50 * 10 < sum(each) < 50 * 5000


def test_waiting_and_other_threads_are_no_part_of_a_profile(of, tmp_path: Path) -> None:
    folded = tmp_path / "stacks.folded"
    folded.write_text(
        "thread (1): MainThread;run (asyncio/runners.py:118);epoll_pwait (libc.so.6) 900\n"
        "thread (2): exporter;wait (threading.py:3);futex (libc.so.6) 500\n"
        "thread (1): MainThread;run (asyncio/runners.py:118);send (a.py:5);write (libc.so.6) 30\n"
        "thread (1): MainThread;run (asyncio/runners.py:118);send (a.py:7);parse (b.py:1) 10\n",
        encoding="utf-8",
    )
    profile = of("profile").Profile.read(folded)
    assert profile.samples == 40
    assert profile.own == {"write() in send (a.py)": 30, "parse (b.py)": 10}
    assert profile.within == {"run (asyncio/runners.py)": 40, "send (a.py)": 40, "parse (b.py)": 10}


def test_figures_replace_figures_and_nothing_else(of, tmp_path: Path) -> None:
    writing = of("writing")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{writing.BEGIN}\nold\n{writing.END}\nafter\n", encoding="utf-8")
    writing.write_into(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{writing.BEGIN}\n\nnew\n\n{writing.END}\nafter\n"
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="no markers"):
        writing.write_into(page, "new")
