"""A report is drawn from what was measured, escapes everything, needs nothing from elsewhere, and opens in a browser."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.decision import Measure, Plan, decide
from diagnostics.analysis.growth import Reading, Round
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.proof.clients.load import LoadReport
from diagnostics.proof.experiment.experiment import Outcome, SideOutcome
from diagnostics.proof.report import tables as report
from diagnostics.proof.report.incident import markdown, page
from diagnostics.proof.report.incident.bundle import Bundle, from_bundle
from diagnostics.proof.report.incident.folder import write
from diagnostics.proof.report.incident.model import Curve, Flame, Incident, Plot, ReportTable, Statement, Tone, sites
from diagnostics.proof.report.incident.plot import svg, ticks
from diagnostics.proof.report.incident.proof import from_outcome
from diagnostics.proof.scenarios import scenario
from diagnostics.proof.subjects.monitor_client import LoadCapture

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.chromium import run_once  # found once the path is set

HOSTILE = '</script></iframe><script>document.title="owned"</script><img src=x onerror=\'document.title="owned"\'>"&|`*'
BYTES = (ValueType("inuse_space", "bytes"),)


def profile(*stacks: tuple[str, int]) -> Profile:
    """Stacks of functions, leaf first, each in a file of its name."""
    samples = tuple(
        Sample(tuple(Frame(name, f"/srv/{name}.py", 7) for name in names.split()), (held,)) for names, held in stacks
    )
    return Profile("memray", BYTES, samples, 0.0, 3.0, ("what came before",))


def outcome() -> Outcome:
    """Four rounds of each side: the broken one gains 1 MiB in each and gives it back."""
    known = scenario("unbounded_buffer")
    sides = []
    for number, (name, growth) in enumerate((("broken", 4096.0), ("fixed", -3.0))):
        rounds = []
        for index in range(4):
            start = 10.0 * (2 * index + number)
            readings = tuple(
                Reading(start + 0.1 * step, 30 * 2**20 + (step * 2**17 if growth > 0 else 2**16), 2**26, 9, 20)
                for step in range(1, 9)
            )
            still = Reading(start, 30 * 2**20, 2**26, 3, 9)
            rounds.append(Round(start, 8, 8, still, readings, replace(still, time=start + 2)))
        figures = {measure: [] for measure in Measure} | {
            Measure.GROWTH: [growth + part for part in (0.0, 1.0, -1.0, 0.5)],
            Measure.REMAINS: [1.0, -2.0, 3.0, 0.0],
        }
        side = SideOutcome(name, known.apps[name], known.expected[name], rounds=rounds, figures=figures)
        side.finding = decide(figures, known.least, Plan())
        side.loads = [LoadReport(seconds=2.0, streams=8, events=100, bytes=4096, outcomes=Counter(time_up=8))]
        side.peaks = [2**17] * 4
        side.capture = LoadCapture(profile(("read unbounded_buffer/broken main", 2**20)), b"<html>", 99.0)
        sides.append(side)
    return Outcome(known, 7, sides, began=1_790_000_000.0, seconds=41.0)


def incident() -> Incident:
    told = report.to_json([outcome()], "diagnostics verify unbounded_buffer --seed 7")
    return from_outcome(outcome(), told["scenarios"][0], told["command"])


def test_a_report_of_a_proof_shows_what_was_measured_and_how_to_run_it_again() -> None:
    text = page.render(incident()).decode()
    for shown in (
        "UNBOUNDED",
        "BOUNDED",
        "4,096",
        "1.00 MiB",
        "diagnostics verify unbounded_buffer --seed 7",
        "python",
    ):
        assert shown in text
    assert len(re.findall(r"<polyline", text.partition("<iframe")[0])) == 8  # a piece for each round
    assert text.count("<iframe") == 3  # broken, fixed, and the difference
    assert page.render(incident()) == page.render(incident())


def test_the_same_report_reads_as_text() -> None:
    text = markdown.render(incident())
    assert text.startswith("# unbounded\\_buffer\n\n2026-09-21 ")
    assert "- **UNBOUNDED** broken: " in text
    assert "| broken | growth, bytes per chunk | 4,096 | 4,09" in text
    assert "    diagnostics verify unbounded_buffer --seed 7" in text


def test_every_side_that_is_not_as_foretold_is_shown_so() -> None:
    found = outcome()
    found.sides[1].expected = found.sides[0].decision
    told = report.to_json([found], "")
    statements = from_outcome(found, told["scenarios"][0], "").statements
    assert [each.tone for each in statements] == [Tone.BAD, Tone.OPEN]
    assert "expected UNBOUNDED" in statements[1].text


def hostile() -> Incident:
    held = replace(profile((HOSTILE.replace(" ", "_"), 5)), not_covered=(HOSTILE,))
    return Incident(
        HOSTILE,
        0.0,
        1.0,
        HOSTILE,
        statements=(Statement(Tone.BAD, HOSTILE, HOSTILE + "\udcff"),),
        plots=(Plot(HOSTILE, (Curve(HOSTILE, Tone.BAD, (((0.0, 1.0), (1.0, 2.0)),)),), HOSTILE),),
        tables=(ReportTable(HOSTILE, (HOSTILE,), ((HOSTILE,),)), sites(HOSTILE, held)),
        flames=(Flame(HOSTILE, held),),
        commands=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
    )


class Elements(HTMLParser):
    """The elements of a page and of the pages in its frames."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.frames: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.frames += [value for name, value in attrs if name == "srcdoc" and value]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]


def test_hostile_names_are_text_and_nothing_else() -> None:
    outer = Elements()
    outer.feed(page.render(hostile()).decode())
    assert (outer.found["script"], outer.found["img"], outer.found["iframe"]) == (0, 0, 1)
    inner = Elements()
    inner.feed(outer.frames[0])
    assert (inner.found["script"], inner.found["img"]) == (2, 0)
    text = markdown.render(hostile())
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<" not in re.sub(r"\\<", "", prose)
    assert all(line.count("|") - line.count("\\|") in (0, 2, 4) for line in text.splitlines() if line.startswith("|"))


def test_a_page_needs_nothing_from_elsewhere() -> None:
    text = page.render(incident()).decode()
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"'<&]+", text)) <= {
        "http://www.w3.org/2000/svg"
    }  # a namespace, never fetched


@given(st.floats(0, 1e10), st.floats(1, 1e10), st.booleans())
def test_ticks_lie_on_the_axis_and_are_few(low: float, span: float, binary: bool) -> None:
    found = ticks(low, low + span, 5, binary=binary)
    assert len(found) <= 14
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e12)), min_size=1, max_size=30), min_size=1, max_size=4
    )
)
def test_every_point_is_drawn_inside_the_picture(pieces: list[list[tuple[float, float]]]) -> None:
    drawn = svg(Plot("memory", (Curve("a", Tone.BAD, tuple(tuple(sorted(piece)) for piece in pieces)),)))
    if drawn.startswith("<p>"):
        assert sum(map(len, pieces)) < 2
        return
    root = ElementTree.fromstring(drawn)
    for line in root.iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 960
            assert 0 <= y <= 300


def test_a_long_timeline_is_thinned_and_keeps_its_end() -> None:
    points = tuple((float(number), float(number % 7)) for number in range(50_000))
    drawn = svg(Plot("memory", (Curve("a", Tone.PLAIN, (points,)),)))
    assert len(drawn) < 60_000
    assert "948.0," in drawn


def test_a_bundle_says_what_it_could_not_take() -> None:
    worker = {
        "worker": "0", "pid": 12, "state": "answering", "tasks": 4, "ledger": None,
        "memory": {"rss_bytes": 50 * 2**20, "in_use_bytes": None}, "process": {"fds": None, "threads": 3},
    }  # fmt: skip
    grown = {**worker, "memory": {"rss_bytes": 53 * 2**20, "in_use_bytes": 2**20}}
    bundle = Bundle("http://127.0.0.1:6060", [(100.0, {"workers": [worker]}), (160.0, {"workers": [grown]})])
    bundle.captures["retained"] = {"state": "failed", "error": {"message": "the worker has no agent"}}
    found = from_bundle(bundle, "diagnostics capture http://127.0.0.1:6060 --kind bundle")
    text = markdown.render(found)
    assert "not captured: retained: the worker has no agent" in text
    assert "+3.00 MiB" in text
    assert "unknown" not in text


def test_a_bundle_begins_with_the_verdict_its_path_and_the_former_life_and_has_the_services_versions() -> None:
    """Neither the verdict nor the path that its own objects.txt had was in it, and its versions were the command line's."""
    path = "module app -> global 'kept' -> list[900] -> app.Row"
    verdict = {
        "title": "Objects are retained", "verdict": "retained_objects", "alarm": True, "confidence": "high",
        "says": "They grow.", "culprit": "app.Row", "path": path, "next": "diagnostics capture", "fix": "Bound it.",
        "also": [{"title": "Threads", "says": "Threads grow."}],
    }  # fmt: skip
    worker = {
        "worker": "0", "pid": 12, "state": "answering", "tasks": 4, "ledger": None, "verdict": verdict,
        "memory": {"rss_bytes": 2**20, "in_use_bytes": None}, "process": {"fds": None, "threads": 3},
    }  # fmt: skip
    end = {
        "worker": "0",
        "pid": 11,
        "said": "It was killed for memory.",
        "verdict": "They grew.",
        "file": "/x",
        "oom": True,
    }
    bundle = Bundle("http://127.0.0.1:6060", [(100.0, {"workers": [worker], "ends": [end]})])
    bundle.captures["tasks"] = {
        "state": "done",
        "versions": {"python": "3.9.1", "uvicorn": "0.1"},
        "command": ["serve", "x"],
    }
    found = from_bundle(bundle, "diagnostics capture")
    assert [statement.word for statement in found.statements] == [
        "Killed for memory",
        "Objects are retained",
        "1.00 MiB resident",
    ]
    told = found.statements[1].text
    for words in (
        "They grow.",
        "Culprit: app.Row.",
        f"Kept alive by: {path}.",
        "Next: diagnostics capture",
        "Also: Threads",
    ):
        assert words in told
    assert "They grew." in found.statements[0].text
    assert found.versions["service: python"] == "3.9.1"
    assert found.versions["service: command"] == "serve x"
    assert list(found.versions).index("service: python") < list(found.versions).index("report: python")


@pytest.mark.e2e
@pytest.mark.needs("chromium", "chromium")
def test_the_flame_graphs_are_drawn_in_a_browser_and_hostile_names_do_nothing(tmp_path: Path) -> None:
    path = write(replace(hostile(), title="mine"), tmp_path)
    options = ["--enable-logging=stderr", "--window-size=1100,2400", "--virtual-time-budget=3000"]
    done = run_once(tmp_path, *options, f"--screenshot={tmp_path}/page.png", path.as_uri())
    # What the page's policy keeps from running is told on the console.
    assert "Content Security Policy" not in done.stderr, done.stderr
    assert (tmp_path / "page.png").stat().st_size > 20_000
    dumped = run_once(tmp_path, *options, "--dump-dom", path.as_uri())
    assert "<title>mine</title>" in dumped.stdout
