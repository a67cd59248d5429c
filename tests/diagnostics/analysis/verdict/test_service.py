"""The verdict on the service as a whole, where the sums that it judges are not all read each second."""

from __future__ import annotations

from typing import Any

from diagnostics.analysis.verdict.readings import MIB
from diagnostics.analysis.verdict.service import Told, verdict_on_whole
from diagnostics.analysis.verdict.verdict import Verdict

SECONDS = 100
CALM = {"0": Told("load_only", "medium")}


def line(start: float, per_second: float = 0.0, every: int = 1) -> list[tuple[float, float]]:
    return [(float(second), start + per_second * second) for second in range(0, SECONDS, every)]


def told(series: dict[str, Any], *, processes: int = 1, workers: dict[str, Told] = CALM) -> Verdict:
    return verdict_on_whole(series, 0.0, processes=processes, rss=30 * MIB, workers=workers, unknown={})


# On a busy machine PSS, which is costly, is read each third second: too rarely for a trend within two minutes.
RARE: dict[str, Any] = {"pss_bytes": line(25 * MIB, every=3), "processes": line(1)}
TMPFS: dict[str, Any] = {
    "cgroup_working_bytes": line(40 * MIB, 1.5e6),
    "cgroup_tmpfs_bytes": line(10 * MIB, 1.5e6),
    "cgroup_limit_bytes": line(900 * MIB),
}


def test_what_the_limit_is_charged_for_is_judged_though_pss_was_read_too_rarely() -> None:
    """A tmpfs filled by 130 MiB in two minutes beside a process that stood still: "too few readings", and no alarm."""
    found = told({**RARE, "rss_bytes": line(30 * MIB), **TMPFS}).finding
    assert (found.word, found.confidence, found.culprit) == (
        "cgroup_growth",
        "high",
        "files in a tmpfs and shared memory",
    )
    assert [each.value for each in found.evidence if each.what == "of it in processes, by their RSS"] == [0.0]


def test_growth_of_the_process_is_not_called_that_of_the_cgroup_by_rare_readings() -> None:
    grows = {**RARE, "rss_bytes": line(30 * MIB, 1.5e6), **TMPFS, "cgroup_tmpfs_bytes": line(10 * MIB)}
    assert told(grows).word != "cgroup_growth"
    # Where nothing tells what processes gained, nothing is said of the rest.
    assert told(TMPFS).word == "inconclusive"


def test_a_sum_that_is_read_too_rarely_is_replaced_by_rss_with_that_reserve() -> None:
    found = told({**RARE, "rss_bytes": line(30 * MIB)}).finding
    assert (found.word, found.confidence) == ("load_only", "low")
    assert "PSS was read too rarely so far to be judged" in found.says
    grown = told({**RARE, "rss_bytes": line(30 * MIB, 4e5)}, processes=4).finding
    assert (grown.word, grown.confidence) == ("whole_growth", "low")  # forked workers share pages that RSS counts again


def test_a_service_of_one_process_is_not_called_calm_while_that_process_may_grow() -> None:
    """What grows may fill memory that the allocator had already: PSS stood still, and bytes in use did not."""
    still: dict[str, Any] = {"pss_bytes": line(25 * MIB), "rss_bytes": line(30 * MIB), "processes": line(1)}
    unsure = {"0": Told("inconclusive", "low")}
    assert told(still).word == "load_only"
    found = told(still, workers=unsure).finding
    assert (found.word, found.confidence) == ("inconclusive", "low")
    assert "worker 0 does not exclude growth" in found.says
    # Of several processes the sum says what no single one can.
    assert told(still, processes=2, workers={**unsure, "1": Told("load_only", "high")}).word == "load_only"
