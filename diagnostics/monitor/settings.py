"""Every setting of the monitor, read from its environment once, at its start. docs/configuration.md lists them.

A wrong value raises UsageError with the variable, its value and the allowed ones, before anything is served.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from .captures.kept.store import Limits
from .egress.destination import Destination as Store
from .egress.settings import EgressSettings
from .export.destination import DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS, Destination
from .recording.recorder import RecordSettings
from .recording.ring import MAX_CAPACITY
from .rules.references import missing
from .rules.rule import DEFAULTS, Command, Rule
from .rules.rule_file import parse
from .rules.trusted import read_rules

__all__ = ["MonitorSettings", "fleet_words"]

_DAY = 24 * 3600.0
_MOST_LOOKS_AN_HOUR = 60
_MOST_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """The monitor's settings; the defaults are those of an empty environment.

    looks_per_hour           automatic captures of one worker in an hour; 0: none
    fleet                    words that name the monitors of a fleet, see diagnostics/fleet/targets.py; none: no page of it
    pprof_interval_seconds   maximal age of a window's profile that /debug/pprof returns again
    profiles                 where live heaps are pushed to; None: nowhere
    egress                   where finished captures are sent; off by default
    """

    record: RecordSettings = field(default_factory=RecordSettings)
    keep: Limits = field(default_factory=Limits)
    rules: tuple[Rule, ...] = DEFAULTS
    looks_per_hour: int = 6
    fleet: tuple[str, ...] = ()
    pprof_interval_seconds: float = 60.0
    profiles: Destination | None = None
    egress: EgressSettings = field(default_factory=EgressSettings)
    allowed_hosts: tuple[str, ...] = ()
    token: str = ""
    read_token: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> MonitorSettings:
        usual = cls()
        read = _Reader(environment)
        return cls(
            record=_record(read, usual.record),
            keep=_keep(read, usual.keep),
            rules=_rules(environment.get("DIAGNOSTICS_RULES", ""), environment),
            looks_per_hour=read.whole("DIAGNOSTICS_LOOKS_PER_HOUR", usual.looks_per_hour, 0, _MOST_LOOKS_AN_HOUR),
            fleet=fleet_words(environment.get("DIAGNOSTICS_FLEET_TARGETS", "").split(";")),
            pprof_interval_seconds=read.number(
                "DIAGNOSTICS_PPROF_INTERVAL_SECONDS", usual.pprof_interval_seconds, 0, _MOST_SECONDS
            ),
            profiles=_profiles(read),
            egress=_egress(read, usual.egress),
            allowed_hosts=tuple(
                filter(None, map(str.strip, environment.get("DIAGNOSTICS_ALLOWED_HOSTS", "").split(",")))
            ),
            token=environment.get("DIAGNOSTICS_TOKEN", ""),
            read_token=environment.get("DIAGNOSTICS_READ_TOKEN", ""),
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Mapping[str, str]

    def number(self, name: str, usual: float, least: float, most: float = math.inf) -> float:
        text = self.environment.get(name, "")
        if not text:
            return usual
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value):  # NaN is in no range
            allowed = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
            raise UsageError(f"{name} is {text!r}", remedy=f"set a number {allowed}")
        return value

    def whole(self, name: str, usual: int, least: int, most: float = math.inf) -> int:
        value = self.number(name, usual, least, most)
        if value != int(value):
            raise UsageError(f"{name} is {self.environment[name]!r}", remedy="set a whole number")
        return int(value)


def _record(read: _Reader, usual: RecordSettings) -> RecordSettings:
    record = RecordSettings(
        seconds=read.number("DIAGNOSTICS_RECORD_SECONDS", usual.seconds, 0, MAX_CAPACITY),
        interval=read.number("DIAGNOSTICS_RECORD_INTERVAL_SECONDS", usual.interval, 0.05, 60),
        minutes=read.whole("DIAGNOSTICS_RECORD_MINUTES", usual.minutes, 1, MAX_CAPACITY),
        files=read.whole("DIAGNOSTICS_RECORD_FILES", usual.files, 1, 10_000),
    )
    if record.seconds / record.interval > MAX_CAPACITY:
        raise UsageError(
            f"{record.seconds:g} s of readings {record.interval:g} s apart are more than {MAX_CAPACITY}",
            remedy="set DIAGNOSTICS_RECORD_SECONDS lower or DIAGNOSTICS_RECORD_INTERVAL_SECONDS higher",
        )
    return record


def _keep(read: _Reader, usual: Limits) -> Limits:
    return Limits(
        captures=read.whole("DIAGNOSTICS_KEEP_CAPTURES", usual.captures, 1),
        total_bytes=read.whole("DIAGNOSTICS_KEEP_BYTES", usual.total_bytes, 1),
        age_seconds=read.number("DIAGNOSTICS_KEEP_DAYS", usual.age_seconds / _DAY, 0) * _DAY,
        free_bytes=read.whole("DIAGNOSTICS_KEEP_FREE_BYTES", usual.free_bytes, 0),
    )


def _profiles(read: _Reader) -> Destination | None:
    given = read.environment
    return Destination.of(
        url=given.get("DIAGNOSTICS_PROFILES_URL", ""),
        protocol=given.get("DIAGNOSTICS_PROFILES_PROTOCOL", ""),
        seconds=read.number("DIAGNOSTICS_PROFILES_SECONDS", DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS),
        name=given.get("DIAGNOSTICS_PROFILES_NAME", "") or given.get("OTEL_SERVICE_NAME", ""),
        headers=given.get("DIAGNOSTICS_PROFILES_HEADERS", ""),
    )


def _egress(read: _Reader, usual: EgressSettings) -> EgressSettings:
    url = read.environment.get("DIAGNOSTICS_EGRESS_URL", "")
    return EgressSettings(
        destination=Store.parse(url, "DIAGNOSTICS_EGRESS_URL") if url else None,
        service=read.environment.get("DIAGNOSTICS_EGRESS_SERVICE")
        or read.environment.get("OTEL_SERVICE_NAME")
        or usual.service,
        bytes_a_day=read.whole("DIAGNOSTICS_EGRESS_BYTES_A_DAY", usual.bytes_a_day, 0),
        tries=read.whole("DIAGNOSTICS_EGRESS_TRIES", usual.tries, 1, 100),
        waiting=read.whole("DIAGNOSTICS_EGRESS_WAITING", usual.waiting, 1, 1000),
        timeout_seconds=read.number("DIAGNOSTICS_EGRESS_TIMEOUT_SECONDS", usual.timeout_seconds, 1, 3600),
    )


def fleet_words(words: Iterable[str]) -> tuple[str, ...]:
    """The words for a fleet's monitors, without empty ones. Raises UsageError for an address that is none; what a name leads to
    is looked up when somebody asks."""
    given = tuple(filter(None, map(str.strip, words)))
    for word in given:
        if not word.startswith(("dns:", "prometheus:", "k8s:")):
            from ..fleet.targets import resolve  # only where there are targets: it loads an HTTP client

            try:
                resolve([word])
            except UsageError as error:
                raise UsageError(
                    f"DIAGNOSTICS_FLEET_TARGETS (--fleet): {error.message}", remedy=error.remedy
                ) from error
    return given


def _rules(path: str, environment: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of the TOML file at this path; none for "off"; the default rules where it is empty."""
    if not path:
        return DEFAULTS
    if path == "off":
        return ()
    try:
        text, untrusted = read_rules(Path(path))
    except UsageError as error:
        raise UsageError(f"DIAGNOSTICS_RULES is {path!r}: {error.message}", remedy=error.remedy) from error
    rules = parse(text, path)
    for rule in rules:
        if untrusted and any(isinstance(action, Command) for action in rule.actions):
            raise UsageError(
                f"{path}: rule {rule.name!r} calls a command, and {untrusted}",
                remedy="let its owner alone write the file and the folders above it, or leave the command out",
            )
    for name, absent in missing(rules, environment):
        raise UsageError(f"{path}: rule {name!r}: {absent.message}", remedy=absent.remedy)
    return rules
