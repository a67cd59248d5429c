"""Does a setting pay? Each round has a run of every setting, and each run is compared with that of the same round as it is.

Pure. The figures are shares of what the service takes as it is: 0.2 saved means a fifth less. Their intervals are Student's t
over rounds (`analysis.decision`), at 5 % for all settings together (Bonferroni). A setting pays where the whole interval of
what it saves at rest, or at the peak, is above the least share that matters, and the other has not grown by as much on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...analysis.decision import Interval, confidence_interval
from .settings import AS_IT_IS
from .trial import Trial

__all__ = ["LEAST_SAVED", "LEVEL", "Row", "best", "judge"]

# Less than this share of a service's memory is nobody's reason to change its allocator.
LEAST_SAVED = 0.05
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: means in bytes and CPU seconds for a thousand events; as shares, what it saves and costs against as it is.

    For the service as it is the shares are None. `pays`: whether it certainly saves what matters.
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
        """The larger of what it certainly saves at rest and at the peak."""
        return max((each.low for each in (self.settled_saved, self.peak_saved) if each is not None), default=0.0)


def judge(trials: Mapping[str, Sequence[Trial]]) -> list[Row]:
    """A row for each setting, as it is first. Needs two rounds of each; raises ValueError."""
    plain = trials[AS_IT_IS]
    level = LEVEL / max(1, len(trials) - 1)
    rows = []
    for name, runs in trials.items():
        settled, peak, cpu = (
            [float(run.settled_bytes) for run in runs],
            [float(run.peak_bytes) for run in runs],
            [_cpu(run) for run in runs],
        )
        row = Row(name, *(confidence_interval(values, level) for values in (settled, peak, cpu)))
        if name != AS_IT_IS:
            pairs = list(zip(runs, plain, strict=True))
            row = Row(
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


def best(rows: Sequence[Row]) -> Row | None:
    """The setting that pays most; None where none does."""
    return max((row for row in rows if row.pays), key=lambda row: row.saved, default=None)


def _cpu(run: Trial) -> float:
    """CPU seconds for a thousand events."""
    return run.cpu_seconds / max(1, run.events) * 1000
