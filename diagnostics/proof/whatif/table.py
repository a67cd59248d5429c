"""The result for all settings: a table with intervals, a sentence on the one that pays, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from ...analysis.decision import Interval
from .judge import LEAST_SAVED, LEVEL, SettingResult, best
from .settings import Setting
from .trial import Trial

__all__ = ["SCHEMA", "conclusion", "table", "to_json"]

SCHEMA = "highwater.whatif/1"
_MIB = 2**20


def table(rows: Sequence[SettingResult]) -> Table:
    """One row for each setting."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold")
    made.add_column("setting", no_wrap=True)
    for heading in ("settled, MiB", "peak, MiB", "saved at rest, %", "saved at the peak, %", "CPU paid, %", "pays"):
        made.add_column(heading, justify="right", no_wrap=heading != "pays")
    for row in rows:
        shares = [_share(each) for each in (row.settled_saved, row.peak_saved, row.cpu_paid)]
        pays = "" if row.settled_saved is None else "yes" if row.pays else "no"
        made.add_row(row.name, _mib(row.settled), _mib(row.peak), *shares, pays)
    return made


def conclusion(rows: Sequence[SettingResult], tried: Sequence[Setting]) -> str:
    """A sentence with the setting that pays and its variables, or that none does."""
    first = best(rows)
    if (
        first is not None
        and first.settled_saved is not None
        and first.peak_saved is not None
        and first.cpu_paid is not None
    ):
        words = next(setting.words for setting in tried if setting.name == first.name)
        return (
            f"{first.name} pays: {words} saves {_share(first.settled_saved)} % at rest and {_share(first.peak_saved)} % at the"
            f" peak, for {_share(first.cpu_paid)} % of CPU."
        )
    others = [row for row in rows if row.settled_saved is not None]
    if not others:
        return "nothing was compared with the service as it is."
    most = max(others, key=lambda row: row.settled_saved.mean if row.settled_saved is not None else 0.0)
    return (
        f"none pays: no setting certainly saves {LEAST_SAVED:.0%} of this service's memory under this work. The best at rest is"
        f" {most.name}, with {_share(most.settled_saved)} %."
    )


def to_json(
    rows: Sequence[SettingResult],
    tried: Sequence[Setting],
    trials: Mapping[str, Sequence[Trial]],
    failed: Mapping[str, str],
    missing: Sequence[str],
    command: str,
) -> dict[str, Any]:
    """All numbers: bytes, seconds, shares between 0 and 1. `command`: to repeat it."""
    first = best(rows)
    return {
        "schema": SCHEMA,
        "command": command,
        "level": LEVEL,
        "least_saved": LEAST_SAVED,
        "pays": None if first is None else first.name,
        "settings": [
            {
                "name": row.name,
                "environment": dict(next(setting.environment for setting in tried if setting.name == row.name)),
                "pays": row.pays,
                **{
                    name: None if interval is None else asdict(interval)
                    for name, interval in (
                        ("settled_bytes", row.settled),
                        ("peak_bytes", row.peak),
                        ("cpu_seconds_per_thousand_events", row.cpu),
                        ("settled_saved", row.settled_saved),
                        ("peak_saved", row.peak_saved),
                        ("cpu_paid", row.cpu_paid),
                    )
                },
                "runs": [asdict(run) for run in trials[row.name]],
            }
            for row in rows
        ],
        "failed": dict(failed),
        "not_tried": list(missing),
    }


def _mib(interval: Interval) -> str:
    return f"{interval.mean / _MIB:,.1f} ± {(interval.high - interval.low) / 2 / _MIB:,.1f}"


def _share(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.mean * 100:+.0f} ± {(interval.high - interval.low) / 2 * 100:.0f}"
