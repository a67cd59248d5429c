"""Reports say what was measured, in a table, in JSON and for a build server; no experiment is needed to check that."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from diagnostics.analysis.decision import Measure, decide
from diagnostics.analysis.growth import Reading, Round
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.cli import main
from diagnostics.proof.clients.load import LoadReport
from diagnostics.proof.experiment.experiment import Outcome, SideOutcome, least_of
from diagnostics.proof.report import tables as report
from diagnostics.proof.report.evidence import own_first, top_line
from diagnostics.proof.scenarios import SCENARIOS, scenario
from diagnostics.proof.subjects.monitor_client import Grown, LoadCapture

LIBRARY = Frame("read", "/lib/aiohttp/streams.py", 400)
READER = Frame("read_upstream", "/srv/unbounded_buffer/broken.py", 53)
CHAT = Frame("chat", "/srv/unbounded_buffer/broken.py", 36)
HELD = Profile(
    kind="memray",
    sample_types=(ValueType("inuse_objects", "count"), ValueType("inuse_space", "bytes")),
    samples=(
        Sample((LIBRARY, READER), (100, 6000)),
        Sample((READER,), (1, 1000)),
        Sample((LIBRARY, CHAT), (900, 2000)),
        Sample((LIBRARY,), (1, 1000)),
    ),
    time=1.0,
    duration=3.0,
)


def outcome(*, fixed_growth: float) -> Outcome:
    known = scenario("unbounded_buffer")
    sides = []
    for name, growth in (("broken", 4000.0), ("fixed", fixed_growth)):
        side = SideOutcome(name, known.apps[name], known.expected[name])
        one = Reading(time=1.0, in_use_bytes=10, rss_bytes=20, tasks=1, fds=3)
        side.rounds = [Round(0.0, 8, 8, one, (one,), one)] * 4
        side.loads = [LoadReport(streams=8, outcomes=Counter(time_up=8))] * 4
        side.figures = {
            Measure.GROWTH: [growth, growth + 9, growth - 9, growth],
            Measure.REMAINS: [0.0, 9.0, -9.0, 0.0],
            Measure.RESIDENT: [0.0, 4096.0, -4096.0, 0.0],
        }
        side.peaks = [1000.0] * 4
        side.finding = decide(side.figures, least_of(known, side), known.plan)
        side.capture = LoadCapture(HELD, b"<html></html>", 99.0)
        sides.append(side)
    return Outcome(known, 7, sides, began=1_790_000_000.0, seconds=40.0)


def printed(found: Outcome, width: int) -> str:
    out = io.StringIO()
    report.print_table([found], Console(file=out, width=width))
    report.print_held(found, Console(file=out, width=width))
    return out.getvalue()


def test_memory_is_charged_to_the_innermost_line_of_the_app_by_bytes_not_by_count() -> None:
    line = top_line(HELD, "unbounded_buffer/")
    assert line is not None
    assert (line.frame, line.bytes, line.share) == (READER, 7000, 0.7)
    assert str(line) == "/srv/unbounded_buffer/broken.py:53 read_upstream"
    assert top_line(HELD, "another_scenario/") is None


def held(*stacks: tuple[Frame, ...]) -> Profile:
    samples = tuple(Sample(stack, (1, 1000 - place)) for place, stack in enumerate(stacks))
    return Profile("memray", HELD.sample_types, samples, 1.0, 3.0)


def test_what_is_installed_below_the_app_and_what_started_the_loop_are_none_of_its_lines() -> None:
    """A virtual environment in the service's folder; a service that calls `uvicorn.run` itself."""
    venv = "/srv/shop/.venv/lib/python3.11/site-packages"
    start = (
        Frame("run_until_complete", "/usr/lib/python3.11/asyncio/base_events.py", 600),
        Frame("run", "/usr/lib/python3.11/asyncio/runners.py", 190),
        Frame("run", f"{venv}/uvicorn/server.py", 67),
        Frame("<module>", "/srv/shop/app.py", 90),
    )
    receive = Frame("data_received", f"{venv}/uvicorn/protocols/http/httptools_impl.py", 170)
    queue = Frame("put_nowait", "/usr/lib/python3.11/asyncio/queues.py", 130)
    middleware = Frame("__call__", "/srv/shop/middleware.py", 12)
    line = top_line(held((receive, *start), (queue, middleware, *start)), "/srv/shop")
    assert line is not None
    assert line.frame == middleware
    # A service that is installed itself: a library of its own, but never what carries every request.
    client = Frame("remember", "/opt/venv/lib/python3.11/site-packages/shop_client/cache.py", 7)
    line = top_line(held((receive, *start), (queue, client, *start)), "/srv/elsewhere")
    assert line is not None
    assert line.frame == client
    assert top_line(held((receive, *start)), "/srv/shop") is None


def test_an_owner_that_the_app_has_stands_before_one_of_a_library() -> None:
    table, kept = (
        "module wsproto.frame_protocol -> global '_XOR_TABLE' -> list[256] -> bytes",
        "module broken -> global 'kept' -> bytes",
    )
    task = "Task 'x' -> read_upstream (broken.py:32) -> local 'queue' -> bytes"
    assert own_first([table, kept, task], HELD, "unbounded_buffer/") == [kept, task, table]
    assert own_first([table, kept], HELD, "another/") == [table, kept]
    packaged = kept.replace("module broken", "module scenarios.unbounded_buffer.broken")
    assert own_first([table, packaged], HELD, "unbounded_buffer/") == [packaged, table]


def test_what_grew_in_an_accused_app_is_told_only_where_its_own_code_holds_it() -> None:
    """A C library kept 30 KB of each stream: "alive in it: class uvicorn.UvicornDeprecationWarning (grew by 6 KiB)"."""
    found = outcome(fixed_growth=3.0)
    broken = found.sides[0]
    innocent = Grown("dict", 6000, 9, ("class uvicorn.UvicornDeprecationWarning -> dict",))
    broken.capture = replace(broken.capture, grown=(innocent,)) if broken.capture else None
    text = printed(found, 200)
    assert "UvicornDeprecationWarning" not in text
    assert "alive in it: not known, the samples of dict that were traced back are held by libraries alone" in text
    task = "Task 'x' -> read_upstream (broken.py:32) -> local 'queue' -> bytes"
    own = Grown("bytes", 9_000_000, 900, ("class uvicorn.Config -> bytes", task))
    broken.capture = replace(broken.capture, grown=(own,)) if broken.capture else None
    assert f"alive in it: {task} (grew by 8.6 MiB" in printed(found, 200)


def test_the_table_shows_interval_unit_decision_and_answer() -> None:
    text = printed(outcome(fixed_growth=3.0), 120)
    for part in ("unbounded_buffer", "growth, B/chunk", "4,000 [3,9", "UNBOUNDED", "BOUNDED", "yes", "read_upstream"):
        assert part in text
    assert " no " not in text
    assert " no " in printed(outcome(fixed_growth=4000.0), 120)


def test_the_folder_has_numbers_graphs_and_profiles(tmp_path: Path) -> None:
    outcomes = [outcome(fixed_growth=3.0)]
    told = report.to_json(outcomes, "diagnostics verify unbounded_buffer --seed 7")
    graphs = report.write_folder(outcomes, told, tmp_path)
    assert [path.name for path in graphs] == ["broken-flamegraph.html", "fixed-flamegraph.html"]
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["verified"] is True
    assert numbers["versions"]["python"]
    assert numbers["versions"]["highwater-diagnostics"]
    side = numbers["scenarios"][0]["sides"][0]
    assert side["held"] == {**vars_of(READER), "bytes": 7000, "share": 0.7}
    assert len(side["rounds"]) == 4
    assert Profile.from_json(json.loads((tmp_path / "broken-profile.json").read_text(encoding="utf-8"))) == HELD


def vars_of(frame: Frame) -> dict[str, object]:
    return {"function": frame.function, "file": frame.file, "line": frame.line}


def test_junit_names_the_app_that_failed_and_why(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    report.write_junit([outcome(fixed_growth=4000.0)], path)
    suite = ElementTree.parse(path).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite[1][0]
    assert failure.get("message") == "UNBOUNDED, expected BOUNDED"
    assert "growth" in (failure.text or "")


def test_the_list_of_scenarios_says_what_each_claims(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenarios", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(SCENARIOS)
    assert listed[0]["expected"] == {"broken": "UNBOUNDED", "fixed": "BOUNDED"}
    assert main(["scenarios"]) == 0
    assert "unbounded_buffer" in capsys.readouterr().out


def test_each_scenario_differs_in_its_defect_only() -> None:
    """A fix that changes half of the file proves nothing about the defect."""
    root = Path(report.__file__).parents[1] / "scenarios"
    for name in SCENARIOS:
        broken, fixed = (
            (root / name / f"{side}.py").read_text(encoding="utf-8").splitlines() for side in ("broken", "fixed")
        )
        changed = [line for line in broken if line not in fixed]
        assert 0 < len(changed) <= 10, name


def test_unknown_scenarios_and_contradicting_flags_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "unbounded_bufer"]) == 2
    assert "did you mean 'unbounded_buffer'" in capsys.readouterr().err
    assert main(["verify", "--no-capture", "--report", "somewhere"]) == 2
    assert main(["verify", "--fixed", "a:b"]) == 2
    assert main(["verify", "unbounded_buffer", "--fixed", "module"]) == 2
