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
        return {"cpu_us": cpu, "delivered": delivered, "exact": 1.0}

    judged = of("targets").judged

    def line(relay: list[dict[str, float]]) -> str:
        results = {("relay", "paced"): relay, ("bare", "paced"): [paced(40.0), paced(50.0), paced(60.0)]}
        return next(line for line in judged(results).splitlines() if "to bare" in line)

    # By the ratio within each round, not by the ratio of medians.
    assert line([paced(36.0), paced(50.0), paced(90.0)]).endswith("| 1.00 | yes |")
    assert line([paced(44.0), paced(55.0), paced(66.0)]).endswith("| 1.10 | **no** |")
    assert "not judged: 50%" in line([paced(36.0), paced(45.0, delivered=0.5), paced(54.0)])
    assert judged({}) == ""


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
