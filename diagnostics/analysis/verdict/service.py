"""The verdict on the service as a whole: all its processes together, and what no single worker shows.

The sum is of PSS, in which a page that several processes share counts once: it grows where the machine's memory goes, and
not where a worker is forked. Where one process's PSS is not to be read the sum is unknown, and RSS is judged with that reserve;
so it is where PSS, which is costly, was read too rarely so far. What the limit is charged for is read each second, and is
judged first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..lives import Points
from ..units import format_value
from .causes import CAUSES
from .finding import Confidence, Finding
from .no_growth import an_hour, slope_evidence
from .readings import MOST, Evidence, Readings
from .startup import with_reserve
from .verdict import Verdict

__all__ = ["Told", "verdict_on_whole"]


class Told(NamedTuple):
    """What the verdict on one worker says: its word, how sure it is, and how many bytes grew by what clients have opened."""

    word: str
    confidence: Confidence
    load: float = 0.0


def verdict_on_whole(
    series: Mapping[str, Points],
    since: float,
    *,
    processes: int,
    rss: int,
    workers: Mapping[str, Told],
    unknown: Mapping[str, str],
) -> Verdict:
    """Judge the sums over all processes.

    series      pss_bytes, private_bytes, rss_bytes, processes: (time, value) in order of time
    since       readings before this are warm-up
    processes   how many there are now; rss: the sum of their RSS, in bytes
    workers     what was found of each worker alone, by its name
    unknown     why a sum is not known, by its name
    """
    readings = Readings(state="answering", balance={"rss_bytes": rss, "parts": {}}, series=series, since=since)
    now = (
        Evidence("processes", processes, "count"),
        Evidence("RSS of all of them, shared pages counted again", rss, "bytes"),
    )
    name, what, reserve = _sum(readings, unknown)
    beside = _beside_processes(readings, name, now)
    if beside is not None:
        return Verdict(beside)
    trend = readings.trend(name)
    if trend is None or trend.state == "unknown":
        says = f"There are too few readings since the warm-up to judge the service as a whole.{reserve}"
        return Verdict(_unless_told(Finding("inconclusive", "low", says, now), workers, processes))
    rise = readings.heavy_rise(name)
    if rise is None:
        return Verdict(_unless_told(_calm(readings, name, what, reserve, now), workers, processes))
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
    grows = f"The service as a whole grows by {amount}"
    alarms = _alarms(workers)
    if alarms:
        first = workers[alarms[0]]
        says = f"{grows}; the verdict on worker {', '.join(alarms)} tells more."
        return Verdict(Finding(first.word, first.confidence, says + reserve, tuple(evidence)))
    if sum(told.load for told in workers.values()) >= MOST * rise.amount:
        names = ", ".join(sorted(worker for worker, told in workers.items() if told.load))
        says = f"{grows}, by what clients have opened meanwhile: the verdict on worker {names} tells more."
        return Verdict(
            Finding("load_only", "medium" if name == "pss_bytes" else "low", says + reserve, tuple(evidence))
        )
    if processes == 1 and len(workers) == 1:
        # What that process's memory does its own verdict tells, with readings that the sum has not; and PSS rises, too, where
        # another process ends that used the same libraries.
        ((worker, told),) = workers.items()
        explained = told.word not in ("inconclusive", "load_only")
        says = f"{grows}, which is one process; the verdict on worker {worker} {'tells' if explained else 'does not tell'} why."
        word, sure = (told.word, told.confidence) if explained else ("inconclusive", "low")
        return Verdict(Finding(word, sure, says + reserve, tuple(evidence)))
    says = f"{grows}, and no single worker's verdict explains it."
    confidence: Confidence = "medium" if name == "pss_bytes" else "low"
    return Verdict(with_reserve(readings, Finding("whole_growth", confidence, says + reserve, tuple(evidence))))


def _sum(readings: Readings, unknown: Mapping[str, str]) -> tuple[str, str, str]:
    """The sum that is judged: its series, its name, and with what reserve."""
    pss, rss = readings.trend("pss_bytes"), readings.trend("rss_bytes")
    if pss is None:
        return "rss_bytes", "RSS", f" PSS is not known {unknown['pss_bytes']}." if "pss_bytes" in unknown else ""
    if pss.state == "unknown" and rss is not None and rss.state != "unknown":
        return "rss_bytes", "RSS", " PSS was read too rarely so far to be judged."
    return "pss_bytes", "PSS", f" PSS is not known {unknown['pss_bytes']}." if "pss_bytes" in unknown else ""


def _alarms(workers: Mapping[str, Told]) -> list[str]:
    """The names of the workers whose verdict is an alarm."""
    return sorted(worker for worker, told in workers.items() if CAUSES[told.word].alarm)


def _unless_told(finding: Finding, workers: Mapping[str, Told], processes: int) -> Finding:
    """`finding`, in which the sum shows no growth, or what a worker's own verdict has found already.

    A worker has more readings than the sum, and better ones: of bytes in use, which settle before resident memory does. A leak
    that is found there is not taken back here because the sum is not sure yet; nor, where the worker is all that there is,
    because the sum seems calm.
    """
    alarms, alone = _alarms(workers), (processes, len(workers)) == (1, 1)
    if alone and finding.word == "load_only":
        ((worker, told),) = workers.items()
        if told.word == "inconclusive":
            # What grows may fill memory that the allocator had already: the sum is calm, and that is no reason to be calm.
            says = f"{finding.says} That is one process, and the verdict on worker {worker} does not exclude growth."
            return Finding("inconclusive", "low", says, finding.evidence)
    if not alarms or (finding.word != "inconclusive" and not alone):
        return finding
    first = workers[alarms[0]]
    says = f"The verdict on worker {', '.join(alarms)} tells more. {finding.says}"
    return Finding(first.word, first.confidence, says, finding.evidence)


# What a cgroup is charged for beside its processes' own memory: (series, what it is).
_PARTS = (
    ("cgroup_tmpfs_bytes", "files in a tmpfs and shared memory"),
    ("cgroup_socket_bytes", "network buffers of sockets"),
    ("cgroup_kernel_bytes", "the kernel's own memory (stacks, page tables, directory entries)"),
)


def _beside_processes(readings: Readings, name: str, now: tuple[Evidence, ...]) -> Finding | None:
    """What the limit is charged for grows, and the processes account for less than half of it, by their sum of this name."""
    charged = readings.heavy_rise("cgroup_working_bytes")
    # Without a limit the cgroup is the machine's, or a whole container's: what others do there is not this service's.
    if charged is None or readings.room is None:
        return None
    seconds = charged.trend.seconds
    gained = readings.gained(name, seconds)
    if gained is None or gained >= MOST * charged.amount:
        return None
    of_processes = max(gained, 0.0)
    # A file in a tmpfs that processes have mapped is in their PSS as well; here it was not, or PSS would have grown.
    parts = [(more, part, what) for part, what in _PARTS if (more := readings.gained(part, seconds)) is not None]
    most, _part, what = max(parts, default=(0.0, "", ""))
    evidence = [
        *charged.evidence("charged to the cgroup"),
        Evidence(f"of it in processes, by their {name[:3].upper()}", of_processes, "bytes"),
        *(Evidence(f"of it in {what}", more, "bytes") for more, _, what in parts),
        *now,
    ]
    amount = format_value(round(charged.amount), "bytes")
    share = f"{of_processes / charged.amount:.0%}"
    says = f"What the limit is charged for grows by {amount}, and the processes account for {share} of it"
    if most >= MOST * charged.amount:
        says += f": {format_value(round(most), 'bytes')} are {what}."
        return Finding("cgroup_growth", "high", says, tuple(evidence), culprit=what)
    says += "; the kernel does not say in which part, or it is page cache that is in use, or other processes of this cgroup."
    return Finding("cgroup_growth", "medium", says, tuple(evidence))


def _calm(readings: Readings, name: str, what: str, reserve: str, now: tuple[Evidence, ...]) -> Finding:
    """That they do not grow, where growth that matters is excluded; else that it is not known yet."""
    names = [(name, what)]
    if readings.room is not None:
        names.append(("cgroup_working_bytes", "what the limit is charged for"))
    bounds = [(words, bound) for each, words in names if (bound := readings.bounded(each)) is not None]
    evidence = (*(slope_evidence(words, bound) for words, bound in bounds), *now)
    if not bounds:
        return Finding(
            "inconclusive", "low", f"There are too few readings to judge the service as a whole.{reserve}", now
        )
    words, worst = max(bounds, key=lambda each: each[1].high)
    amount = f"{an_hour(max(0.0, worst.high))} an hour over {worst.seconds:.0f} s (95 % sure)"
    if worst.high > readings.matters:
        says = f"All processes together are not seen to grow, but may: {words} by up to {amount}.{reserve}"
        return Finding("inconclusive", "low", says, evidence)
    says = f"All processes together do not grow by as much as matters: {words} by at most {amount}.{reserve}"
    return Finding("load_only", "high" if name == "pss_bytes" else "low", says, evidence)
