"""The verdict on the service as a whole: all its processes together, and what no single worker shows.

The sum is of PSS, in which a page that several processes share counts once: it grows where the machine's memory goes, and
not where a worker is forked. Where one process's PSS is not to be read the sum is unknown, and RSS is judged with that reserve.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .finding import Finding
from .lives import Points
from .readings import Evidence, Readings
from .units import format_value
from .verdict import Verdict

__all__ = ["verdict_on_whole"]


def verdict_on_whole(
    series: Mapping[str, Points],
    since: float,
    *,
    processes: int,
    rss: int,
    alarms: Collection[str],
    unknown: Mapping[str, str],
) -> Verdict:
    """Judge the sums over all processes.

    series      pss_bytes, private_bytes, rss_bytes, processes: (time, value) in order of time
    since       readings before this are warm-up
    processes   how many there are now; rss: the sum of their RSS, in bytes
    alarms      workers whose own verdict is an alarm: their growth is told there
    unknown     why a sum is not known, by its name
    """
    readings = Readings(state="answering", balance={"rss_bytes": rss, "parts": {}}, series=series, since=since)
    name, what = ("pss_bytes", "PSS") if readings.trend("pss_bytes") else ("rss_bytes", "RSS")
    reserve = f" PSS is not known {unknown['pss_bytes']}." if "pss_bytes" in unknown else ""
    found = readings.trend(name)
    now = (
        Evidence("processes", processes, "count"),
        Evidence("RSS of all of them, shared pages counted again", rss, "bytes"),
    )
    if found is None or found.state == "unknown":
        says = f"There are too few readings since the warm-up to judge the service as a whole.{reserve}"
        return Verdict(Finding("inconclusive", "low", says, now))
    rise = readings.heavy_rise(name)
    if rise is None:
        says = f"All processes together do not grow over {found.seconds:.0f} s, by their {what}.{reserve}"
        slope = Evidence(f"{what}, slope over {found.seconds:.0f} s", found.slope or 0.0, "bytes a second")
        return Verdict(Finding("load_only", "high" if name == "pss_bytes" else "low", says, (slope, *now)))
    amount = format_value(round(rise.amount), "bytes")
    more = readings.gained("processes", rise.trend.seconds) or 0.0
    private = readings.gained("private_bytes", rise.trend.seconds)
    evidence = [
        *rise.evidence(f"{what} of all processes"),
        Evidence("more processes in this time", more, "count"),
        *now,
    ]
    if private is not None:
        evidence.insert(2, Evidence("private memory of all processes, grown by", private, "bytes"))
    if alarms:
        says = (
            f"The service as a whole grows by {amount}; the verdict on worker {', '.join(sorted(alarms))} tells more."
        )
    else:
        says = f"The service as a whole grows by {amount}, and no single worker's verdict explains it."
    return Verdict(Finding("whole_growth", "medium" if name == "pss_bytes" else "low", says + reserve, tuple(evidence)))
