"""Which part of a service an instruction belongs to, from the frames that valgrind's log notes (frames/frames.c).

An instruction, of the interpreter or of C below it, belongs to the innermost Python frame; that frame to the part that its file
is in. A file of no part, as most of the standard library's, belongs to the part that called it: it works for that one.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

LOOP = "event loop"
OTHER_THREADS = "other threads"
# The first that is in a file's name gives its part.
PARTS = (
    ("/logging/", "log line"),
    ("relay/log.py", "log line"),
    ("relay/stream/ending.py", "log line"),
    ("/uvicorn/", "accept, parse, reply"),
    ("/h11/", "accept, parse, reply"),
    ("relay/client/", "accept, parse, reply"),
    ("relay/serving/", "accept, parse, reply"),
    ("/fastapi/", "FastAPI, routing"),
    ("/starlette/", "FastAPI, routing"),
    ("/pydantic/", "FastAPI, routing"),
    ("relay/api/", "routes, requests"),
    ("relay/app.py", "routes, requests"),
    ("relay/admission/", "keys and limits"),
    ("relay/memory/", "keys and limits"),
    ("/opentelemetry/instrumentation/", "instrumentation"),
    ("/opentelemetry/util/", "instrumentation"),
    ("relay/telemetry/instrumentation.py", "instrumentation"),
    ("relay/telemetry/server.py", "instrumentation"),
    ("relay/telemetry/metrics/http.py", "instrumentation"),
    ("relay/telemetry/", "telemetry"),
    ("/opentelemetry/", "telemetry"),
    ("/openai/", "openai client"),
    ("/httpx", "openai client"),
    ("/httpcore", "openai client"),
    ("relay/upstream/", "transport"),
    ("/aiohttp/", "transport"),
    ("/yarl/", "transport"),
    ("relay/stream/", "stream, events"),
    ("relay/protocol/", "stream, events"),
    ("bench/peers/", "stream, events"),
    ("relay/", "rest of the relay"),
    ("diagnostics/", "ledger"),
)
SERVING_THREAD = 1  # as valgrind numbers them
ORDER = (LOOP, *dict.fromkeys(part for _, part in PARTS), OTHER_THREADS)

_NOTE = re.compile(r"^\*\*\d+\*\* (on|off|leave|enter\t([^\t]*)\t(.*))$")
_EVENTS = re.compile(r"^events-\d+: (\d+)$")
_THREAD = re.compile(r"^current-tid: (\d+)$")


@dataclass(frozen=True, slots=True)
class Note:
    """`what` is on, off, enter or leave; `at` the process's instructions until then."""

    what: str
    at: int
    thread: int
    file: str = ""
    function: str = ""


Function = tuple[str, str]  # its part; its name and file


@dataclass
class Spent:
    """Instructions and frames entered, by function."""

    instructions: dict[Function, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[Function, float] = field(default_factory=lambda: defaultdict(float))

    def of_part(self, part: str) -> tuple[float, float]:
        instructions, calls = (
            sum(number for (each, _), number in counts.items() if each == part)
            for counts in (self.instructions, self.calls)
        )
        return instructions, calls

    def total(self) -> tuple[float, float]:
        return sum(self.instructions.values()), sum(self.calls.values())


def part_of(file: str, caller: str) -> str:
    """The part of a frame by its file, or its caller's."""
    return next((part for piece, part in PARTS if piece in file), caller)


def read(lines: Iterable[str]) -> Iterator[Note]:
    """The notes of a log, each with the counter that was written behind it."""
    what: re.Match[str] | None = None
    thread = total = 0
    for line in lines:
        if line.startswith("**"):
            if what:
                yield _note(what, total, thread)
            what, total = _NOTE.match(line.rstrip("\n")), 0
        elif match := _THREAD.match(line):
            thread = int(match[1])
        elif match := _EVENTS.match(line):
            total += int(match[1])
    if what:
        yield _note(what, total, thread)


def _note(what: re.Match[str], total: int, thread: int) -> Note:
    return Note(what[1].partition("\t")[0], total, thread, what[2] or "", what[3] or "")


def spent(notes: Iterable[Note]) -> list[dict[Function, Spent]]:
    """What was spent in each time between `on` and `off`, by the frame that the loop, or the thread, had called for it.

    The process's first thread serves.
    """
    found: list[dict[Function, Spent]] = []
    stacks: dict[int, list[Function]] = defaultdict(list)
    last: Note | None = None
    for note in notes:
        if note.what == "on":
            found.append(defaultdict(Spent))
            stacks.clear()
        elif last is None:
            continue  # a frame is left whose time is over
        else:
            stack = stacks[last.thread] or [_outside(last.thread)]
            found[-1][stack[0]].instructions[stack[-1]] += note.at - last.at
        stack = stacks[note.thread]
        if note.what == "enter":
            caller = (stack[-1] if stack else _outside(note.thread))[0]
            part = part_of(note.file, caller) if note.thread == SERVING_THREAD else OTHER_THREADS
            stack.append((part, f"{note.function} ({'/'.join(note.file.split('/')[-2:])})"))
            found[-1][stack[0]].calls[stack[-1]] += 1
        elif note.what == "leave" and stack:
            stack.pop()
        last = None if note.what == "off" else note
    return found


def _outside(thread: int) -> Function:
    return (LOOP if thread == SERVING_THREAD else OTHER_THREADS, "no Python frame")


def median(times: Sequence[dict[Function, Spent]], idle: Mapping[Function, Spent], a_frame: float) -> Spent:
    """What a stream took: of each function the median of several times.

    idle       what was called while no stream opened or ended: that is by the clock, and none of theirs
    a_frame    instructions that noting a frame adds
    """
    outside = _outside(SERVING_THREAD)
    clocked = idle.keys() - {outside}
    a_turn = _quotient(idle[outside].instructions[outside], _entered(idle, clocked)) if outside in idle else 0.0
    each = []
    for time in times:
        one = Spent()
        one.instructions[outside] -= a_turn * _entered(time, clocked)
        for root in time.keys() - clocked:
            for function, count in time[root].instructions.items():
                one.instructions[function] += count
            for function, count in time[root].calls.items():
                one.calls[function] += count
                one.instructions[function] -= a_frame * count
        each.append(one)
    result = Spent()
    for function in {function for one in each for function in one.instructions}:
        result.instructions[function] = statistics.median(one.instructions.get(function, 0.0) for one in each)
        result.calls[function] = statistics.median(one.calls.get(function, 0.0) for one in each)
    return result


def _entered(time: Mapping[Function, Spent], roots: Iterable[Function]) -> float:
    """How often the loop called some of its functions."""
    return sum(time[root].calls.get(root, 0.0) for root in roots if root in time)


def _quotient(dividend: float, divisor: float) -> float:
    return dividend / divisor if divisor else 0.0


def table(peer: str, phases: Mapping[str, Spent]) -> str:
    """Instructions and frames entered per stream of one peer, by part and phase."""
    lines = [
        f"| {peer}, per stream | {' | '.join(f'{phase}: instructions | calls' for phase in phases)} |",
        f"|---|{'---:|' * 2 * len(phases)}",
    ]
    for part in ORDER:
        cells = [each.of_part(part) for each in phases.values()]
        if any(calls for _, calls in cells) or part == LOOP:
            lines.append(_row(part, cells))
    return "\n".join([*lines, _row("**sum**", [each.total() for each in phases.values()])])


def _row(name: str, cells: Sequence[tuple[float, float]]) -> str:
    return f"| {name} | {' | '.join(f'{count:,.0f} | {calls:,.0f}' for count, calls in cells)} |"


def functions_table(counted: Spent, rows: int) -> str:
    """The functions with the most instructions of their own, with the C below them."""
    lines = ["| instructions | calls | function | part |", "|---:|---:|---|---|"]
    most = sorted(counted.instructions.items(), key=lambda item: -item[1])[:rows]
    for function, count in most:
        part, name = function
        lines.append(f"| {count:,.0f} | {counted.calls.get(function, 0.0):,.0f} | {name} | {part} |")
    return "\n".join(lines)
