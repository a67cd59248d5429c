"""`diagnostics blackbox FILE`: the flight recorder's last readings of a worker, how it ended, and whether its memory grew.

Reads only the file, and the table of the worker's live heap where it has one: the service and its monitor may both be gone.
Of a damaged file the records with valid checksums are shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..analysis import heap
from ..analysis.formats.text import render_top
from ..analysis.lines.growth import LineGrowth
from ..analysis.units import format_moment, format_value, printable
from ..analysis.verdict.culprit.growing import grower_since
from ..analysis.views import top
from ..errors import UsageError
from ..monitor.recording import line_record, live_heap, timeline
from ..monitor.recording.outlook import Growth, outlook
from ..monitor.recording.ring import MAX_FILE_BYTES, Recording, decode
from ._profiles import write
from ._stored import at_hand, source

__all__ = ["configure", "run"]

# Columns of the table: (field, heading, unit for format_value)
_SHOWN = (
    ("rss_bytes", "RSS", "bytes"),
    ("in_use_bytes", "in use", "bytes"),
    ("cgroup_working_bytes", "cgroup", "bytes"),
    ("open_streams", "streams", "count"),
    ("buffered_app_bytes", "buffered", "bytes"),
    ("tasks", "tasks", "count"),
    ("events_per_second", "events/s", "count"),
    ("loop_lag_seconds", "lag ms", "ms"),
    ("psi_some_avg10", "PSI %", "percent"),
)
# Lines shown of what was alive, and of what grew; the latter within this time where memory did not grow.
_LINES = 10
_LINES_SECONDS = 3600.0
_NAMES = {"in_use_bytes": "in use", "rss_bytes": "RSS", "cgroup_working_bytes": "cgroup working set"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=source, help="a recording, DIR/blackbox/*.ring, or where it is in a store"
    )
    parser.add_argument("-n", metavar="N", type=int, default=10, help="how many of the last readings; default: 10")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="everything, as /debug/memory/timeline gives it")
    shape.add_argument("--csv", action="store_true", help="all readings, one a line")


def run(arguments: argparse.Namespace) -> int:
    with at_hand(arguments.file, whole=True) as file:
        _show(file, arguments)
    return 0


def _show(file: Path, arguments: argparse.Namespace) -> None:
    recording = _load(file)
    if arguments.json:
        write(json.dumps(timeline.to_json(recording)) + "\n", None)
    elif arguments.csv:
        write(timeline.to_csv(recording), None)
    else:
        write(_text(recording, max(0, arguments.n)) + _alive(file, recording), None)


def _load(path: Path) -> Recording:
    try:
        if not path.is_file():
            raise UsageError(f"no such file: {path}" if not path.exists() else f"not a file: {path}")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UsageError(f"{path} has {size} bytes, no recording has more than {MAX_FILE_BYTES}")
        recording = decode(path.read_bytes())
        if recording.end is None and all(ring.bad and not ring.records for ring in recording.rings):
            raise UsageError("no reading in it is whole: it is cut off or damaged", remedy="take an undamaged copy")
        return recording
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path and its rights") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy) from error


def _text(recording: Recording, count: int) -> str:
    return "\n".join([*_heading(recording), "", *_table(recording, count), "", *_trends(recording)]) + "\n"


def _alive(file: Path, recording: Recording) -> str:
    """The worker's live heap at its end, by line; empty where it sampled no heap."""
    ticks = recording.header.process.get("start_ticks")
    heap_file = live_heap.of_recording(file, ticks) if isinstance(ticks, int) else None
    if heap_file is None:
        return ""
    path, table = heap_file
    profile = heap.profile(table)
    shown = render_top(profile, top(profile, by="line"), _LINES)
    grown = _grown(file, recording, table)
    more = f"more: diagnostics top --lines {printable(str(path))}"
    return f"{grown}\nWhat was alive at {format_moment(table.updated)}:\n{shown}{more}\n"


def _grown(file: Path, recording: Recording, table: heap.HeapTable) -> str:
    """The lines that grew until it ended, and the one that accounts for the growth of its memory."""
    try:
        history = line_record.history_of(file, table)
    except (UsageError, OSError) as error:
        return f"\nWhich lines grew is unknown: {printable(str(error))}\n"
    if history is None:
        return ""
    rising = next((each for each in outlook(recording).growths if each.trend.growing and each.trend.since), None)
    since = rising.trend.since if rising is not None else None
    gained = history.since(history.time - _LINES_SECONDS if since is None else since)
    if gained is None:
        full = history.now.dropped > history.looks[0].dropped
        return "\nWhich lines grew is unknown: its table was full.\n" if full else ""
    rows = [row for row in gained[1] if row.grows][:_LINES]
    named = None if since is None or rising is None else grower_since(history, since, rising.trend.slope or 0.0)
    text = f"\nLines that grew, from {format_moment(gained[0].time)} on:\n" + "".join(map(_line, rows)) if rows else ""
    return text + (f"{printable(named.says)}\n" if named is not None else "")


def _line(row: LineGrowth) -> str:
    low, middle, high = (format_value(round(each), "bytes", signed=True) for each in row.per_hour)
    return printable(f"  {middle} an hour ({low} to {high})  {row.name}") + "\n"


def _heading(recording: Recording) -> list[str]:
    process = recording.header.process
    started = process.get("started")
    since = format_moment(started) if isinstance(started, int | float) else "an unknown time"
    lines = [printable(f"worker {process.get('worker')} (pid {process.get('pid')}), started {since}")]
    for ring in recording.rings:
        counted = f"{len(ring.records)} readings {ring.size.interval:g} s apart"
        damaged = f", {ring.bad} bad ones left out" if ring.bad else ""
        lines.append(counted + damaged + (f", {ring.lost} missing" if ring.lost else ""))
    if recording.end is not None:
        noticed = recording.end.get("noticed")
        when = f" Noticed {format_moment(noticed)}." if isinstance(noticed, int | float) else ""
        lines.append(printable(f"{recording.end.get('said')}{when}"))
        if recording.end.get("verdict"):
            lines.append(printable(f"Last verdict: {recording.end['verdict']}"))
    elif recording.end_damaged:
        lines.append("How it ended is damaged in this file.")
    else:
        lines.append(
            "No end is written: it was running when the last reading was taken, or nobody was left to see it end."
        )
    return lines


def _table(recording: Recording, count: int) -> list[str]:
    rows = timeline.rows(recording)[-count:] if count else []
    if not rows:
        return ["no readings"]
    names = [name for name, _ in timeline.columns(recording)]
    shown = [(names.index(field), heading, unit) for field, heading, unit in _SHOWN if field in names]
    table = [["time", *(heading for _, heading, _ in shown)]]
    table += [[format_moment(row[0] or 0.0), *(_cell(row[at], unit) for at, _, unit in shown)] for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "ms":
        return f"{1000 * value:.1f}"
    return f"{value:.1f}" if unit == "percent" else format_value(round(value), unit)


def _trends(recording: Recording) -> list[str]:
    judged = outlook(recording)
    lines = [_trend(growth) for growth in judged.growths]
    if judged.limit_bytes is not None and judged.used_bytes is not None:
        used, limit = format_value(round(judged.used_bytes), "bytes"), format_value(round(judged.limit_bytes), "bytes")
        line = f"limit: {used} of {limit} used at the last reading"
        if judged.seconds_to_limit is not None:
            line += f"; at this slope it was {judged.seconds_to_limit:,.0f} s away"
        lines.append(line)
    return lines


def _trend(growth: Growth) -> str:
    trend, name = growth.trend, _NAMES.get(growth.series, growth.series)
    if trend.slope is None or trend.low is None or trend.high is None:
        return f"{name}: unknown, {trend.readings} readings in {trend.seconds:.0f} s are too few or have a gap"
    slope, low, high = (
        format_value(round(value), "bytes", signed=True) for value in (trend.slope, trend.low, trend.high)
    )
    text = f"{name}: {trend.state.replace('_', ' ')}, {slope} a second ({low} to {high}) over {trend.seconds:.0f} s"
    per = trend.per(growth.finished / 1000) if growth.finished else None
    if per is not None and trend.growing:
        text += f"; {format_value(round(per[0]), 'bytes', signed=True)} for 1,000 finished streams"
    return text
