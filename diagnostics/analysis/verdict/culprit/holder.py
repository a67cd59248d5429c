"""Who holds what grew, by an objects capture: the container on the ways to most of it, whatever types those objects have.

The capture traces samples of the few types that grew most, each standing for the same number of bytes of its type. An entry of
a container is mostly several objects (a tuple, a dictionary, its strings): no type alone then accounts for most of the
growth, and the container does. So the ways of all types are laid over each other from their roots on, weighted by bytes, and
the longest beginning that still has most of the bytes is the holder. A connection or a session is a dozen types, of which
the smaller ones are not traced: where those that are traced have most of the bytes, the others are taken to be held alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..readings import MOST
from .container import LENGTH, container_on

__all__ = ["Holder", "as_the_traced", "holder_of", "lost_in_c", "place_of", "share", "ways_of"]

Way = Mapping[str, Any]

# Roots that are no holder: garbage, and what was not found.
_NO_HOLDER = frozenset({"cycle", "unknown"})
# What differs between two looks at one container: its length, and the line that its function has come to.
_CHANGING = re.compile(LENGTH + r"|:\d+(?=\)$)")
# An attribute of an instance: the top package, the class, which may be within another one, and the attribute.
_ATTRIBUTE = re.compile(r"(\w+(?:\.\w+)+)\.\w+")
_ANY = ".*"
# Beginnings that say nothing alone: of a module all globals hang, of a task all frames, of a loop all timers.
_NOT_ALONE = ("module ", "Task", "thread", "event loop", "(")


@dataclass(frozen=True, slots=True)
class Holder:
    """`path` from a root to the container, `bytes` that grew below it, `types` of those objects, the largest first.

    in_c   whether the path begins at an object that C code alone refers to
    """

    path: str
    bytes: float
    types: tuple[str, ...]

    @property
    def in_c(self) -> bool:
        return self.path.startswith("(")

    @property
    def name(self) -> str:
        """The container as it is called where it is.

        The way goes on below it as far as all that grew has it in common: each entry may have a list of its own.
        """
        return container_on(self.path)


def place_of(path: str) -> tuple[str, ...]:
    """The parts of a way without lengths and lines: ways to the same container of several streams are equal in it."""
    return tuple(_CHANGING.sub("", part) for part in path.split(" -> "))


def ways_of(census: Mapping[str, Any], row: Mapping[str, Any]) -> list[Way]:
    """The ways to objects of a row's type, the commonest first."""
    if row.get("unheld"):
        return []
    return list((census.get("paths") or {}).get(row.get("type") or row.get("function")) or ())


def share(ways: Sequence[Way], root: str | None, of: Sequence[Way] | None = None) -> float:
    """The share of the samples whose way begins so; None: of all these ways."""
    everything = sum(way["samples"] for way in (ways if of is None else of))
    meant = sum(way["samples"] for way in ways if root is None or way.get("root") == root)
    return meant / everything if everything else 0.0


def lost_in_c(census: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """Bytes of what grew that no object refers to, by the samples of each type and by its blocks: C code has or lost them."""
    return float(
        sum(row["bytes_delta"] * (1.0 if row.get("unheld") else share(ways_of(census, row), "lost")) for row in rows)
    )


def as_the_traced(census: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float:
    """How many bytes in objects that grew stand behind one whose way was traced; 1 where too few of them were."""
    grew = sum(row["bytes_delta"] for row in rows if not row.get("unheld"))
    traced = sum(row["bytes_delta"] for row in rows if ways_of(census, row))
    return float(grew / traced) if traced >= MOST * grew > 0 else 1.0


def _beginnings(parts: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """All beginnings of a way: its parts without lengths and lines, and as it is shown. The object itself is the last.

    Of an attribute (`lib.Parser._stream`) there is one more for its object, whatever the attribute: what hangs from several of
    them is held by the object.
    """
    for length in range(1, len(parts)):
        key = place_of(" -> ".join(parts[:length]))
        yield key, " -> ".join(parts[:length])
        owner = _ATTRIBUTE.fullmatch(key[-1])
        if owner:
            yield (*key[:-1], owner[1] + _ANY), " -> ".join([*parts[: length - 1], owner[1]])


def holder_of(
    census: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], least: float, *, root: str | None = None
) -> Holder | None:
    """The container below which at least `least` bytes of what grew are; None where none has as much.

    root  the kind of root that ways must have; None: of any but garbage's
    """
    alike = as_the_traced(census, rows)
    below: dict[tuple[str, ...], float] = {}
    text_of: dict[tuple[str, ...], str] = {}
    types: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        ways = ways_of(census, row)
        for way in ways:
            if way.get("root") in _NO_HOLDER or (root is not None and way.get("root") != root):
                continue
            weight = alike * row["bytes_delta"] * share([way], None, ways)
            for key, text in _beginnings(str(way["path"]).split(" -> ")):
                below[key] = below.get(key, 0.0) + weight
                text_of.setdefault(key, text)
                of_type = types.setdefault(key, {})
                of_type[str(row.get("type"))] = of_type.get(str(row.get("type")), 0.0) + weight
    enough = [
        key for key, held in below.items() if held >= least and not (len(key) == 1 and key[0].startswith(_NOT_ALONE))
    ]
    if not enough:
        return None
    longest = max(enough, key=lambda key: (len(key), not key[-1].endswith(_ANY), below[key]))
    names = sorted(types[longest], key=lambda name: -types[longest][name])
    return Holder(text_of[longest], below[longest], tuple(names))
