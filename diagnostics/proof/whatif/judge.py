"""Does a setting pay? Each round has a run of every setting, which is compared with the unchanged service's run in that round.

Pure. The figures are shares of the unchanged service's memory: 0.2 saved means a fifth less. Their intervals are Student's t
over rounds (`analysis.decision`), at 5 % for all settings together (Bonferroni). A setting pays where the whole interval of
the saving at rest, or at the peak, is above the least share that matters, and the other one has not grown by as much in the
mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...analysis.decision import Interval, confidence_interval
from .settings import AS_IT_IS
from .trial import Trial

__all__ = ["LEAST_SAVED", "LEVEL", "SettingResult", "best", "judge"]

# The least share of a service's memory that is worth a change of its allocator.
LEAST_SAVED = 0.05
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class SettingResult:
    """One setting: means in bytes and CPU seconds per thousand events; savings and cost as shares of the unchanged service.

    For the unchanged service the shares are None. `pays`: whether the saving is certainly above the least share.
    """

    name: str
    settled: Interval
    peak: Interval
    cpu: Interval
    settled_saved: Interval | None = None
    peak_saved: Interval | None = None
    cpu_paid: Interval | None = None

    @property
    def pays(self) -> bool:
        if self.settled_saved is None or self.peak_saved is None:
            return False
        saved = (self.settled_saved, self.peak_saved)
        return any(each.low > LEAST_SAVED for each in saved) and all(each.mean > -LEAST_SAVED for each in saved)

    @property
    def saved(self) -> float:
        """The larger of the certain savings (lower bounds) at rest and at the peak."""
        return max((each.low for each in (self.settled_saved, self.peak_saved) if each is not None), default=0.0)


def judge(trials: Mapping[str, Sequence[Trial]]) -> list[SettingResult]:
    """A result for each setting, the unchanged service first. Raises ValueError for fewer than two rounds of one."""
    plain = trials[AS_IT_IS]
    level = LEVEL / max(1, len(trials) - 1)
    rows = []
    for name, runs in trials.items():
        settled, peak, cpu = (
            [float(run.settled_bytes) for run in runs],
            [float(run.peak_bytes) for run in runs],
            [_cpu(run) for run in runs],
        )
        row = SettingResult(name, *(confidence_interval(values, level) for values in (settled, peak, cpu)))
        if name != AS_IT_IS:
            pairs = list(zip(runs, plain, strict=True))
            row = SettingResult(
                name,
                row.settled,
                row.peak,
                row.cpu,
                confidence_interval([1 - run.settled_bytes / was.settled_bytes for run, was in pairs], level),
                confidence_interval([1 - run.peak_bytes / was.peak_bytes for run, was in pairs], level),
                confidence_interval([_cpu(run) / _cpu(was) - 1 for run, was in pairs], level),
            )
        rows.append(row)
    return rows


def best(rows: Sequence[SettingResult]) -> SettingResult | None:
    """The setting that pays most; None where none does."""
    return max((row for row in rows if row.pays), key=lambda row: row.saved, default=None)


def _cpu(run: Trial) -> float:
    """CPU seconds per thousand events."""
    return run.cpu_seconds / max(1, run.events) * 1000
