"""One stream's objects, summed up: which containers its bytes pile up in, and which line of code holds each.

The walk gives a tree (every object below the one that it was found through). A container is where bytes pile up if none of
its children has most of its bytes: a queue's deque with a thousand chunks, a dictionary of results, or a single large buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..loops.futures import declares
from .classes import module_of, name_of, type_name
from .paths import describe
from .running.awaits import FrameKey, frame_key

__all__ = ["Holding", "Holdings", "Node", "holdings_of"]

# A child with more than this share of its parent's bytes is taken instead of the parent.
_MOST = 0.5
# Containers below this share of the stream's bytes, or this many bytes, are not reported.
_LEAST_SHARE, _LEAST_BYTES = 0.02, 1024
_LARGEST = 5
# A path of this many objects is a linked list: its end suffices.
_MAX_WAY = 200
# The stack of objects that no frame holds.
_NO_FRAME: tuple[FrameKey, ...] = (("(tasks, contexts, connection)", "", 0),)


class Node(NamedTuple):
    """An object of the stream, the position of the node that refers to it (-1: a root), and its own size in bytes."""

    thing: Any
    parent: int
    size: int


@dataclass(frozen=True)
class Holding:
    """A container in which bytes pile up; `length` is None for an object without one."""

    path: str
    type: str
    bytes: int
    length: int | None


@dataclass
class Holdings:
    """The bytes that a stream holds; `by_stack` has the same by the stack that holds them, leaf first: [bytes, objects]."""

    total_bytes: int = 0
    total_count: int = 0
    largest: list[Holding] = field(default_factory=list)
    by_stack: dict[tuple[FrameKey, ...], list[int]] = field(default_factory=dict)


def holdings_of(nodes: Sequence[Node], between: Iterable[int]) -> Holdings:
    """Sum up one stream. Objects whose ids are in `between` belong to several streams and are not counted."""
    others = between if isinstance(between, set) else set(between)
    sizes = [0 if id(node.thing) in others else node.size for node in nodes]
    counts = [int(size > 0) for size in sizes]
    below, below_counts, largest_child = list(sizes), list(counts), [0] * len(nodes)
    for position in range(len(nodes) - 1, -1, -1):
        parent = nodes[position].parent
        if parent >= 0:
            below[parent] += below[position]
            below_counts[parent] += below_counts[position]
            largest_child[parent] = max(largest_child[parent], below[position])
    holdings = Holdings(sum(sizes), sum(counts))
    least = max(_LEAST_BYTES, int(holdings.total_bytes * _LEAST_SHARE))
    piles, inside = _piles(nodes, below, largest_child, least)
    # An object in no pile is charged to the innermost frame on the path to it.
    lines: dict[int, tuple[FrameKey, ...]] = {}
    for position, node in enumerate(nodes):
        if position in piles:
            way = _way(nodes, position)
            name = _within_frame(way)
            stack = _stack(nodes, position, lines)
            frame = stack[0] if stack else ("", "", 0)
            _add(holdings, ((name, frame[1], frame[2]), *stack), below[position], below_counts[position])
            holdings.largest.append(
                Holding(describe(way), type_name(type(node.thing)), below[position], _length(node.thing))
            )
        elif sizes[position] and not inside[position]:
            _add(holdings, _stack(nodes, position, lines), sizes[position], counts[position])
    holdings.largest.sort(key=lambda holding: -holding.bytes)
    del holdings.largest[_LARGEST:]
    return holdings


def _piles(
    nodes: Sequence[Node], below: list[int], largest_child: list[int], least: int
) -> tuple[set[int], list[bool]]:
    """Positions of the outermost containers where bytes pile up, and for each node whether it lies in one of them."""
    piles: set[int] = set()
    inside = [False] * len(nodes)
    for position, node in enumerate(nodes):  # parents come before their children
        if node.parent >= 0 and (inside[node.parent] or node.parent in piles):
            inside[position] = True
        elif (
            below[position] >= least
            and largest_child[position] <= _MOST * below[position]
            and not _is_machinery(node.thing)
        ):
            piles.add(position)
    return piles, inside


def _is_machinery(thing: Any) -> bool:
    """Whether this is a coroutine, task or context: these hold all of a stream's objects, so they are never a pile."""
    return frame_key(thing) is not None or declares(type(thing), "get_coro") or name_of(type(thing)) == "Context"


def _way(nodes: Sequence[Node], position: int) -> list[Any]:
    way: list[Any] = []
    while position >= 0 and len(way) < _MAX_WAY:
        way.append(nodes[position].thing)
        position = nodes[position].parent
    return way[::-1]


def _stack(nodes: Sequence[Node], position: int, known: dict[int, tuple[FrameKey, ...]]) -> tuple[FrameKey, ...]:
    """The coroutines on the path to a node, innermost first."""
    climbed: list[int] = []
    while position >= 0 and position not in known:
        climbed.append(position)
        position = nodes[position].parent
    stack = known[position] if position >= 0 else ()
    for place in reversed(climbed):
        key = frame_key(nodes[place].thing)
        if key is not None:
            stack = (key, *stack)
        known[place] = stack
    return stack


def _within_frame(way: list[Any]) -> str:
    """The path from the innermost frame on, without lengths: equal for all streams that hold objects in the same place."""
    start = max((place for place, thing in enumerate(way) if frame_key(thing) is not None), default=0)
    words = describe(way[start:], lengths=False).split(" -> ")
    return " -> ".join(words[1:] if len(words) > 1 and frame_key(way[start]) is not None else words)


def _add(holdings: Holdings, stack: tuple[FrameKey, ...], held: int, count: int) -> None:
    sums = holdings.by_stack.setdefault(stack or _NO_FRAME, [0, 0])
    sums[0] += held
    sums[1] += count


def _length(thing: Any) -> int | None:
    """The length of a builtin container; None for any other object, whose `__len__` may run the application's code."""
    return (
        len(thing)
        if module_of(type(thing)) in ("builtins", "collections") and declares(type(thing), "__len__")
        else None
    )
