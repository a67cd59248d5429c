"""The data type of every capture: stacks with values and labels, the model of pprof's profile.proto.

A Profile is immutable. On the wire and on disk it is JSON (`schema` "highwater.profile/1") with its frames interned:

    {"schema": "highwater.profile/1", "kind": "tracemalloc",
     "sample_types": [["inuse_space", "bytes"], ["inuse_objects", "count"]],
     "frames": [["fill", "/srv/app.py", 41], ...],
     "samples": [[[0, 4, 2], [8192, 2], {"route": "/stream"}], ...],
     "time": 1790000000.0, "duration": 5.0, "not_covered": ["..."], "meta": {...}}

Stacks are leaf first, as in pprof.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import UsageError

__all__ = ["SCHEMA", "Frame", "Profile", "Sample", "ValueType"]

SCHEMA = "highwater.profile/1"


@dataclass(frozen=True, slots=True, order=True)
class Frame:
    """One line of one function. `line` is 1-based; 0: unknown."""

    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ValueType:
    """A sample type: its name (`inuse_space`) and its unit (`bytes`, `count`)."""

    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A stack (leaf first), a value for each sample type, and labels with few distinct values (route, state)."""

    stack: tuple[Frame, ...]
    values: tuple[int, ...]
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Profile:
    """The profile of a capture of any kind.

    kind            tracemalloc, memray, objects, tasks, retained, heap
    time            wall-clock time at the end of the window, seconds since the epoch
    duration        length of the window in seconds; 0 for a reading of one moment
    not_covered     sentences on what this reading cannot see; shown wherever the profile is shown
    meta            facts of the capture: stack coverage, measured cost, worker
    """

    kind: str
    sample_types: tuple[ValueType, ...]
    samples: tuple[Sample, ...]
    time: float
    duration: float
    not_covered: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def total(self, value: int = 0) -> int:
        """The sum over all samples of the value with this index."""
        return sum(sample.values[value] for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        index: dict[Frame, int] = {}
        samples = [
            [[index.setdefault(frame, len(index)) for frame in sample.stack], list(sample.values), dict(sample.labels)]
            for sample in self.samples
        ]
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "sample_types": [[kind.name, kind.unit] for kind in self.sample_types],
            "frames": [[frame.function, frame.file, frame.line] for frame in index],
            "samples": samples,
            "time": self.time,
            "duration": self.duration,
            "not_covered": list(self.not_covered),
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Profile:
        """The inverse of `to_json`. Raises UsageError that names the malformed part of `data`."""
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            raise UsageError(f"not a Profile: schema is {schema!r}, expected {SCHEMA!r}")
        try:
            frames = [Frame(str(function), str(file), int(line)) for function, file, line in data["frames"]]
            types = tuple(ValueType(str(name), str(unit)) for name, unit in data["sample_types"])
            samples = tuple(_samples(data["samples"], frames, len(types)))
            return cls(
                kind=str(data["kind"]),
                sample_types=types,
                samples=samples,
                time=_finite(data["time"]),
                duration=_finite(data["duration"]),
                not_covered=tuple(str(text) for text in data.get("not_covered", ())),
                meta=MappingProxyType(dict(data.get("meta", {}))),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UsageError(f"a damaged Profile: {type(error).__name__}: {error}") from error


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no time")
    return number


def _samples(rows: Iterable[Any], frames: list[Frame], width: int) -> Iterable[Sample]:
    for indexes, values, labels in rows:
        if len(values) != width:
            raise ValueError(f"a sample has {len(values)} values, the profile has {width} sample types")
        if any(index < 0 for index in indexes):
            raise IndexError(f"a sample names frame {min(indexes)}")
        yield Sample(
            stack=tuple(frames[index] for index in indexes),
            values=tuple(int(value) for value in values),
            labels=tuple(sorted((str(key), str(value)) for key, value in labels.items())),
        )
