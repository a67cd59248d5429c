"""Each replica's overview as one row, and the replicas that differ from the others. Pure.

A replica is odd where it alone has an alarm, or where its memory is far from that of the others: further from their
median than five times the median absolute deviation (MAD), and further than a quarter of the median, so that equal replicas
with little noise are not odd. With fewer than three replicas that answer none is odd by its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

__all__ = ["HourlyGrowth", "Replica", "odd", "replica_of"]

_MADS: Final = 5.0
_LEAST_SHARE: Final = 0.25
_LEAST_REPLICAS: Final = 3


@dataclass(frozen=True, slots=True)
class HourlyGrowth:
    """Bytes an hour: an estimate `mid` with its 95 % interval."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True, slots=True)
class Replica:
    """One monitor's answer.

    version    of the monitor, "" where it does not report it
    workers    number of workers; `silent` of them do not answer
    verdict    the title of the worst verdict; an alarm is worse than none
    rss_bytes  of all processes of the service; None: unknown
    growth     of the worker that grows fastest; None: too few readings, or unknown
    streams    open ones of all workers; None where a worker's are unknown
    limit_share   usage / limit of the cgroup, 0 to 1; None: no limit
    error      why there is no answer; all other fields are empty then
    """

    name: str
    url: str
    version: str = ""
    workers: int = 0
    silent: int = 0
    verdict: str = ""
    confidence: str = ""
    alarm: bool = False
    says: str = ""
    rss_bytes: int | None = None
    growth: HourlyGrowth | None = None
    streams: int | None = None
    limit_share: float | None = None
    error: str = ""
    ends: tuple[str, ...] = field(default=())

    @property
    def answers(self) -> bool:
        return not self.error


def replica_of(name: str, url: str, overview: dict[str, Any]) -> Replica:
    """The row for an overview of /debug/memory.

    Raises KeyError, TypeError, ValueError, AttributeError or OverflowError for other JSON, and for figures that cannot be.
    """
    workers, service = overview["workers"], overview["service"]
    verdicts = [worker["verdict"] for worker in workers] + [service["verdict"]]
    worst = max(verdicts, key=lambda verdict: bool(verdict["alarm"]))
    growths = [growth for worker in workers if (growth := _growth(worker.get("growth"))) is not None]
    streams = [_streams(worker) for worker in workers]
    shares = [share for worker in workers if (share := _share(worker.get("limit"))) is not None]
    rss = service["rss_bytes"]
    return Replica(
        name,
        url,
        version=str(overview.get("version") or ""),
        workers=len(workers),
        silent=sum(worker["state"] != "answering" for worker in workers),
        verdict=str(worst["title"]),
        confidence=str(worst["confidence"]),
        alarm=bool(worst["alarm"]),
        says=str(worst["says"]),
        rss_bytes=None if rss is None else _count(rss),
        growth=max(growths, key=lambda growth: growth.mid, default=None),
        streams=None if None in streams else sum(count or 0 for count in streams),
        limit_share=max(shares, default=None),
        ends=tuple(str(end["said"]) for end in overview.get("ends") or ()),
    )


def _growth(fields: dict[str, Any] | None) -> HourlyGrowth | None:
    if fields is None:
        return None
    return HourlyGrowth(_finite(fields["low"]), _finite(fields["mid"]), _finite(fields["high"]))


def _share(limit: dict[str, Any] | None) -> float | None:
    if not limit or not limit["limit_bytes"] or limit["used_bytes"] is None:
        return None
    return _finite(_count(limit["used_bytes"]) / max(1, _count(limit["limit_bytes"])))


def _streams(worker: dict[str, Any]) -> int | None:
    """The number of open streams of one worker; None: unknown."""
    if worker["ledger"]:
        return _count(worker["ledger"]["open"])
    seen = (worker.get("connections") or {}).get("streams")
    return None if seen is None else _count(seen)


def _count(value: Any) -> int:
    """Bytes, or a number of things."""
    if not 0 <= int(value) < 2**62:
        raise ValueError(f"{value!r:.60} is no such number")
    return int(value)


def _finite(value: Any) -> float:
    if not abs(number := float(value)) < 2**62:  # also of NaN
        raise ValueError(f"{value!r:.60} is no such number")
    return number


def odd(replicas: Sequence[Replica]) -> dict[str, str]:
    """Name -> why this replica differs from the others.

    >>> rows = [Replica(name, "", rss_bytes=size << 20) for name, size in [("a", 100), ("b", 104), ("c", 97), ("d", 180)]]
    >>> odd(rows)
    {'d': 'RSS is 1.8 times the median of the others'}
    """
    there = [replica for replica in replicas if replica.answers]
    reasons: dict[str, list[str]] = {}
    alarms = [replica for replica in there if replica.alarm]
    if len(alarms) == 1 and len(there) > 1:
        reasons.setdefault(alarms[0].name, []).append("it alone has an alarm")
    for replica in there:
        others = [other.rss_bytes for other in there if other is not replica and other.rss_bytes is not None]
        if replica.rss_bytes is None or len(others) < _LEAST_REPLICAS - 1:
            continue
        middle = median(others)
        distance = median(abs(other - middle) for other in others)
        if abs(replica.rss_bytes - middle) > max(_MADS * distance, _LEAST_SHARE * middle):
            reasons.setdefault(replica.name, []).append(
                f"RSS is {replica.rss_bytes / max(1, middle):.1f} times the median of the others"
            )
    versions = [replica.version for replica in there if replica.version]
    for replica in there:
        if (
            replica.version
            and len(versions) >= _LEAST_REPLICAS
            and versions.count(replica.version) == 1
            and len(set(versions)) == 2
        ):
            reasons.setdefault(replica.name, []).append(f"it alone has version {replica.version}")
    return {name: ", ".join(words) for name, words in reasons.items()}
