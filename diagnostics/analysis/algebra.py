"""Profiles as terms: subtract, add, select. Arguments are never changed.

The laws, which the tests check: the difference of a profile with itself is empty; totals add up under `merge`; the samples
kept by a `focus` and by the same pattern as `ignore` are together all samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import UsageError
from .profile import Frame, Profile, Sample

__all__ = ["aggregate", "average", "difference", "is_difference", "labelled", "merge", "only", "select", "value_index"]

_Key = tuple[tuple[Frame, ...], tuple[tuple[str, str], ...]]


def difference(after: Profile, before: Profile) -> Profile:
    """`after` minus `before`, stack by stack, without the stacks that did not change.

    Its window runs from the end of `before` to the end of `after`. Raises UsageError where their sample types differ.
    """
    _check_types([before, after])
    sums = _sums([after])
    for key, values in _sums([before]).items():
        have = sums.get(key)
        sums[key] = [-value for value in values] if have is None else [a - b for a, b in zip(have, values, strict=True)]
    return replace(
        after,
        kind=_one_kind([before, after]),
        samples=tuple(_samples({key: values for key, values in sums.items() if any(values)})),
        duration=max(0.0, after.time - before.time),
        not_covered=_notes([before, after]),
        meta={
            **_shared_meta([before, after]),
            "difference": {"before": _window(before), "after": _window(after)},
        },
    )


def merge(profiles: Sequence[Profile]) -> Profile:
    """The sum, stack by stack, of several workers or windows. A single profile is returned as it is.

    `time` is the latest, `duration` the sum, as in pprof. `meta` keeps the entries that are equal in all. Raises UsageError
    where there is no profile, or their sample types differ.
    """
    if not profiles:
        raise UsageError("nothing to merge", remedy="name at least one profile")
    if len(profiles) == 1:
        return profiles[0]
    _check_types(profiles)
    return Profile(
        kind=_one_kind(profiles),
        sample_types=profiles[0].sample_types,
        samples=tuple(_samples(_sums(profiles))),
        time=max(profile.time for profile in profiles),
        duration=sum(profile.duration for profile in profiles),
        not_covered=_notes(profiles),
        meta={**_shared_meta(profiles), "merged": len(profiles)},
    )


def average(profiles: Sequence[Profile]) -> Profile:
    """The mean of the profiles, stack by stack, rounded. Raises UsageError as `merge` does."""
    whole = merge(profiles)
    count = len(profiles)
    samples = (
        replace(sample, values=tuple((2 * value + count) // (2 * count) for value in sample.values))
        for sample in whole.samples
    )
    return replace(
        whole,
        samples=tuple(sample for sample in samples if any(sample.values)),
        duration=whole.duration / count,
        meta={**whole.meta, "averaged": count},
    )


def labelled(profile: Profile, key: str, value: str) -> Profile:
    """The same profile, each sample with the label `key` set to `value`."""
    samples = (
        replace(sample, labels=(*(label for label in sample.labels if label[0] != key), (key, value)))
        for sample in profile.samples
    )
    return replace(profile, samples=tuple(samples))


def aggregate(profile: Profile) -> Profile:
    """The same profile with one sample for each stack and set of labels."""
    return replace(profile, samples=tuple(_samples(_sums([profile]))))


def select(
    profile: Profile, *, focus: str | None = None, ignore: str | None = None, labels: Mapping[str, str] | None = None
) -> Profile:
    """The samples that have a frame that matches `focus`, no frame that matches `ignore`, and all of `labels`.

    The patterns are regular expressions, searched for in the function and in the file of each frame, as in pprof.
    Raises UsageError for a pattern that does not compile.
    """
    wanted, unwanted = _matcher("focus", focus), _matcher("ignore", ignore)
    required_labels = (labels or {}).items()

    def chosen(sample: Sample) -> bool:
        return (
            required_labels <= dict(sample.labels).items()
            and (wanted is None or any(map(wanted, sample.stack)))
            and not (unwanted is not None and any(map(unwanted, sample.stack)))
        )

    return replace(profile, samples=tuple(filter(chosen, profile.samples)))


def is_difference(profile: Profile, value: int = 0) -> bool:
    """Whether values must be shown with signs: the profile was made by `difference`, or has values below zero."""
    return "difference" in profile.meta or any(sample.values[value] < 0 for sample in profile.samples)


def value_index(profile: Profile, name: str | None) -> int:
    """The index of the sample type `name`, 0 for None. Raises UsageError that lists the existing ones."""
    names = [kind.name for kind in profile.sample_types]
    if not names:
        raise UsageError("the profile has no sample types", remedy="take it again: it holds nothing that can be shown")
    if name is None:
        return 0
    if name not in names:
        raise UsageError(f"the profile has no sample type {name!r}", remedy=f"choose from: {', '.join(names)}")
    return names.index(name)


def only(profile: Profile, value: int) -> Profile:
    """The same profile with the sample type of this index only; samples whose value of it is 0 are left out."""
    return replace(
        profile,
        sample_types=(profile.sample_types[value],),
        samples=tuple(replace(s, values=(s.values[value],)) for s in profile.samples if s.values[value]),
    )


class _Matcher:
    """A pattern over frames; each frame is searched once, however many stacks it is in."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._known: dict[Frame, bool] = {}

    def __call__(self, frame: Frame) -> bool:
        matches = self._known.get(frame)
        if matches is None:
            search = self._pattern.search
            matches = self._known[frame] = search(frame.function) is not None or search(frame.file) is not None
        return matches


def _matcher(option: str, pattern: str | None) -> _Matcher | None:
    if pattern is None:
        return None
    try:
        return _Matcher(re.compile(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{option} {pattern!r} is not a regular expression: {error}") from error


def _sums(profiles: Iterable[Profile]) -> dict[_Key, list[int]]:
    sums: dict[_Key, list[int]] = {}
    for profile in profiles:
        for sample in profile.samples:
            have = sums.get((sample.stack, sample.labels))
            if have is None:
                sums[sample.stack, sample.labels] = list(sample.values)
            else:
                for index, value in enumerate(sample.values):
                    have[index] += value
    return sums


def _samples(sums: Mapping[_Key, list[int]]) -> Iterable[Sample]:
    return (Sample(stack, tuple(values), labels) for (stack, labels), values in sums.items())


def _check_types(profiles: Sequence[Profile]) -> None:
    first = profiles[0].sample_types
    for profile in profiles[1:]:
        if profile.sample_types != first:
            have, other = (", ".join(f"{t.name}/{t.unit}" for t in types) for types in (first, profile.sample_types))
            raise UsageError(
                f"profiles of different sample types: {have or 'none'} and {other or 'none'}",
                remedy="compare captures of one kind, or choose one type that both have with --type",
            )


def _one_kind(profiles: Sequence[Profile]) -> str:
    kinds = dict.fromkeys(profile.kind for profile in profiles)
    return " and ".join(kinds)


def _notes(profiles: Sequence[Profile]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for profile in profiles for note in profile.not_covered))


def _shared_meta(profiles: Sequence[Profile]) -> dict[str, Any]:
    first, *rest = (profile.meta for profile in profiles)
    return {key: value for key, value in first.items() if all(key in meta and meta[key] == value for meta in rest)}


def _window(profile: Profile) -> dict[str, float]:
    return {"time": profile.time, "duration": profile.duration}
