"""The museum can say no: what is wrong or unnamed counts against the verdict, and so does a calm service that is accused."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    monkeypatch.syspath_prepend(str(ROOT))
    before = set(sys.modules)
    yield lambda name: importlib.import_module(f"tests.museum.{name}")
    for name in [name for name in sys.modules if name.startswith("tests.") and name not in before]:
        del sys.modules[name]


def _side(of: Any, side: str) -> Any:
    return of("table").Side(
        name=f"it-{side}", title="It", requirements=(), command=(), side=side, exhibit="it", kind="task",
        accepted=("orphan_tasks",), culprit=("_watcher",),
    )  # fmt: skip


def _look(of: Any, seconds: float, word: str, confidence: str, says: str, alarm: bool = True) -> Any:
    read = of("named").named({"says": says, "evidence": []})
    return of("visit").Look(seconds, word, confidence, alarm, says, "1", "diagnostics status URL", read)


@pytest.mark.parametrize(
    ("looks", "outcome", "rank"),
    [
        pytest.param([(50, "orphan_tasks", "high", "they run _watcher")], "right", 1, id="kind and culprit"),
        pytest.param([(50, "orphan_tasks", "medium", "tasks grow")], "wrong", None, id="the culprit is not named"),
        pytest.param([(50, "native_growth", "high", "near _watcher")], "wrong", 1, id="another kind"),
        pytest.param([(50, "orphan_tasks", "low", "they run _watcher")], "missed", 1, id="not sure of it"),
        pytest.param([], "missed", None, id="no verdict"),
        pytest.param(
            [(40, "native_growth", "medium", "?"), (60, "orphan_tasks", "high", "they run _watcher")], "right", 1,
            id="the last alarm counts",
        ),
    ],
)  # fmt: skip
def test_a_leak_is_told_rightly_by_kind_and_culprit_at_medium_confidence(
    of: Any, looks: list[Any], outcome: str, rank: int | None
) -> None:
    visit = of("visit").Visit(looks=[_look(of, *look) for look in looks])
    judged = of("judged").judge(_side(of, "leaky"), visit)
    assert (judged.outcome, judged.rank) == (outcome, rank)
    sure = [look for look in looks if look[2] != "low"]
    assert judged.alarm_seconds == (sure[0][0] if sure else None)
    assert judged.named_seconds == (looks[-1][0] if rank else None)


@pytest.mark.parametrize("side", ["fixed", "healthy"])
def test_a_calm_service_may_not_be_accused_of_anything(of: Any, side: str) -> None:
    visit, judge = of("visit").Visit, of("judged").judge
    calm = _look(of, 100, "load_only", "high", "nothing", alarm=False)
    unsure = _look(of, 100, "native_growth", "low", "perhaps")
    sure = _look(of, 90, "allocator_free", "medium", "free")
    assert judge(_side(of, side), visit(looks=[calm, unsure])).outcome == "right"
    assert judge(_side(of, side), visit(looks=[sure, calm])).outcome == "wrong"


def test_what_is_read_first_is_the_sentence_and_then_the_capture(of: Any) -> None:
    named = of("named").named({"says": "Objects grow.", "evidence": [{"what": "more of type dict"}]})
    top = [{"type": "dict"}, {"type": "list"}, {"type": "Session"}]
    shown = named.then({"top": top, "paths": {"list": [{"path": "app.kept"}]}})
    assert shown.shown() == ["Objects grow.; more of type dict", "dict", "list, kept alive by app.kept"]
    assert shown.rank(["app\\.kept"]) == 3
    assert shown.rank(["Session"]) is None  # a fourth line is not read
    assert named.rank(["type dict"]) == 1
    elsewhere = named.then(
        {"top": [{"function": "run", "file": "/envs/museum-ujson-leaky/lib/python3.11/site-packages/h11/a.py"}]}
    )
    assert elsewhere.rank(["ujson"]) is None  # the environment's name names nothing
    assert elsewhere.rank(["run in h11/a"]) == 2
    # Nor does the app's own, unless one of its lines is asked for.
    app = named.then(
        {"top": [{"function": "parse", "file": "/srv/ujson_app.py", "line": 10}, {"type": "module ujson_app -> dict"}]}
    )
    assert app.rank(["ujson"]) is None
    assert app.rank([r"ujson_app\.py:\d"]) == 2
    called = {"function": "parse", "file": "/srv/ujson_app.py", "line": 10}
    by_library = {"function": "loads", "file": "/lib/site-packages/lib/a.py", "line": 3, "caller": called}
    assert named.then({"top": [by_library]}).rank([r"ujson_app\.py:\d"]) == 2


def test_the_page_tells_what_is_wrong_and_counts_it(of: Any) -> None:
    page, visit = of("page"), of("visit").Visit

    def result(side: str, *looks: Any) -> Any:
        found = visit(looks=[_look(of, *look) for look in looks])
        return page.Result(
            _side(of, side), "+1 MiB", found, "", {"it": "1.0"}, "3.11.7", "2026-01-01 00:00", (0.5, 1.0)
        )  # fmt: skip

    results = [
        result("leaky", (50, "orphan_tasks", "high", "a | _watcher")),
        result("fixed", (80, "native_growth", "medium", "it grows")),
    ]
    found = page.marked(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", results)
    assert found.startswith("before\n")
    assert found.endswith("\nafter\n")
    assert "old" not in found
    assert "recall: 1 of 1" in found
    assert "precision: 1 of 2" in found
    assert "accused: 1 of 1" in found
    assert "**accused after 80 s: native_growth (medium)**" in found
    assert "a \\| _watcher" in found
    for one in results:
        assert page.Result.from_json(one.side, one.to_json()) == one
    with pytest.raises(ValueError, match="museum: begin"):
        page.marked("no markers", results)


def test_how_often_each_verdict_was_right_is_counted_and_the_page_has_that_table(of: Any) -> None:
    page, record, visit = of("page"), of("record"), of("visit").Visit

    def result(name: str, side: str, *looks: Any) -> Any:
        found = visit(looks=[_look(of, *look) for look in looks])
        of_it = replace(_side(of, side), name=name)
        return page.Result(of_it, "", found, "", {}, "3.11.7", "2026-01-01 00:00", (0.5, 1.0))

    results = [
        result("named", "leaky", (50, "orphan_tasks", "high", "they run _watcher")),
        result("unnamed", "leaky", (50, "orphan_tasks", "medium", "tasks grow")),
        result("other", "leaky", (50, "native_growth", "high", "near _watcher")),
        result("calm", "healthy", (80, "load_only", "high", "nothing", False)),
        result("accused", "healthy", (80, "native_growth", "medium", "it grows")),
        result("silent", "healthy"),
    ]
    sides = {one.side.name: one.side for one in results}
    records = record.updated([], [(one, "a1") for one in results])
    told = record.by_verdict(records, sides)
    assert "3 leaks and 2 controls" in told  # where nothing was said there is nothing to count
    assert "| orphan-tasks | 2 | 2 of 2 | 1 of 2 | none | 1 of 1 |" in told
    assert "| native-growth | 2 | 0 of 1 | 1 of 1 | 0 of 1 | 0 of 1 |" in told
    assert "| load-only | 1 | none | none | 1 of 1 | 1 of 1 |" in told
    assert "| buffering | not measured | | | | |" in told
    again = record.updated(records, [(result("accused", "healthy", (80, "load_only", "high", "nothing", False)), "a2")])
    assert [one.name for one in again] == [one.name for one in records]
    assert "| load-only | 2 | none | none | 2 of 2 | 2 of 2 |" in record.by_verdict(again, sides)
    text = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    known = record.read()
    assert record.marked(text, known, of("table").read()) == text, "make museum-table"
    assert all(one.name in of("table").read() for one in known)


def test_every_exhibit_has_both_sides_pinned_and_its_app(of: Any) -> None:
    table = of("table")
    sides = table.read()
    for side in sides.values():
        assert all(re.search("==|<", requirement) for requirement in side.requirements), side.name
        assert any("{port}" in word for word in side.command), side.name
        modules = [word.partition(":")[0] for word in side.command if ":app" in word]
        files = [word.rpartition("/")[2] for word in side.command if word.startswith("{apps}/")]
        for name in [f"{module}.py" for module in modules] + files:
            assert (table.APPS / name).is_file(), side.name
        if side.side == "leaky":
            fixed = sides[f"{side.exhibit}-fixed"]
            assert (side.pinned, side.python) != (fixed.pinned, fixed.python), side.name
            assert side.accepted, side.name
            assert side.culprit, side.name
            assert side.report, side.name
    assert sum(side.side == "leaky" for side in sides.values()) >= 24
    assert sum(side.side == "healthy" for side in sides.values()) >= 8


def test_no_exhibit_is_known_to_the_product(of: Any) -> None:
    """What finds them finds them by what they do: nothing of ours names what they leak."""
    names = {
        "_shutdown_watcher",
        "_instrumented_fastapi_apps",
        "_all_metric_readers",
        "HiredisParser",
        "WRITE_LOCKS",
        "istr",
        "CIMultiDictProxy",
        "SimpleCacheFileSystem",
        "class_registry",
        "curl_slist",
    }
    for path in (ROOT / "diagnostics").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if re.search(rf"\b{name}\b", text)], path
