"""A setting pays where it certainly saves what matters, and nowhere else; what is not installed is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnostics.errors import UsageError
from diagnostics.proof.whatif.judge import best, judge
from diagnostics.proof.whatif.settings import AS_IT_IS, Setting, chosen, libraries, settings
from diagnostics.proof.whatif.table import conclusion, to_json
from diagnostics.proof.whatif.trial import Trial

MIB = 2**20
TRIED = [Setting(AS_IT_IS, {}), Setting("one", {"A": "1"}), Setting("two", {"B": "2", "C": "3"})]


def runs(*settled: float, peak: float = 200.0, cpu: float = 1.0) -> list[Trial]:
    return [Trial(round(peak * MIB), round(each * MIB), cpu, 1000, 100) for each in settled]


AS_IS = runs(100, 101, 99, 100, 102)


def test_the_setting_that_saves_most_pays_and_its_price_is_told() -> None:
    rows = judge({AS_IT_IS: AS_IS, "one": runs(80, 81, 79, 80, 80), "two": runs(60, 60, 61, 59, 61, cpu=1.25)})
    assert [(row.name, row.pays) for row in rows] == [(AS_IT_IS, False), ("one", True), ("two", True)]
    told = conclusion(rows, TRIED)
    assert told.startswith("two pays: B=2 C=3 saves +40 ± ")
    assert "for +25 ± 0 % of CPU" in told


@pytest.mark.parametrize(
    "tried",
    [
        pytest.param(runs(60, 140, 50, 150, 70), id="noise"),
        pytest.param(runs(97, 98, 96, 97, 99), id="too-little"),
        pytest.param(runs(80, 81, 79, 80, 80, peak=300), id="at-rest-for-more-at-the-peak"),
        pytest.param(runs(130, 131, 129, 130, 131), id="more"),
    ],
)
def test_none_pays_where_none_certainly_saves_what_matters(tried: list[Trial]) -> None:
    rows = judge({AS_IT_IS: AS_IS, "one": tried})
    assert best(rows) is None
    assert conclusion(rows, TRIED).startswith("none pays: no setting certainly saves 5% of this service's memory")


def test_each_run_is_compared_with_that_of_its_round() -> None:
    """The service as it is took ever more from round to round, and so did it with the setting: a fifth less each time."""
    rows = judge({AS_IT_IS: runs(100, 140, 180, 220, 260), "one": runs(80, 112, 144, 176, 208)})
    assert rows[1].settled_saved is not None
    assert rows[1].settled_saved.low == pytest.approx(0.2, abs=1e-6)
    assert rows[1].pays


def test_allocators_are_found_where_they_are_and_what_is_missing_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "usr" / "lib" / "some-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libjemalloc.so.2").touch()
    found = libraries(tmp_path)
    assert found == {"jemalloc": str(folder / "libjemalloc.so.2")}
    tried, missing = settings(found)
    assert tried[0] == Setting(AS_IT_IS, {})
    assert {"two arenas", "mmap threshold", "jemalloc", "python malloc"} <= {setting.name for setting in tried}
    assert [reason.partition(" ")[0] for reason in missing] == ["tcmalloc", "mimalloc"]
    alone, _ = settings({}, glibc=False)
    assert [setting.name for setting in alone] == [AS_IT_IS, "python malloc"]
    assert [each.name for each in chosen(tried, ["jemalloc"])] == [AS_IT_IS, "jemalloc"]
    with pytest.raises(UsageError, match="no setting 'jemaloc'"):
        chosen(tried, ["jemaloc"])


def test_the_numbers_say_what_was_set_and_what_was_not_tried() -> None:
    trials = {AS_IT_IS: AS_IS, "one": runs(80, 81, 79, 80, 80)}
    told = to_json(
        judge(trials), TRIED, trials, {"two": "it did not start"}, ["mimalloc is not installed"], "diagnostics whatif"
    )
    assert told["pays"] == "one"
    assert [each["environment"] for each in told["settings"]] == [{}, {"A": "1"}]
    assert told["failed"] == {"two": "it did not start"}
    assert told["settings"][0]["settled_saved"] is None
    assert len(told["settings"][1]["runs"]) == 5
