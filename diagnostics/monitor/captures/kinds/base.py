"""What every kind of capture is made of, and how a request's options are checked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....analysis.cost import Method
from ....analysis.units import format_value
from ....errors import TargetError, UsageError
from ...kernel.headroom import read_headroom
from ...workers.targets import Worker

__all__ = [
    "DEFAULT_SECONDS",
    "MAX_SECONDS",
    "WINDOW_OPTIONS",
    "Column",
    "Kind",
    "Option",
    "Session",
    "boolean",
    "bytes_of",
    "capture_id",
    "integer",
    "milliseconds",
    "profile_of",
    "run_reader",
    "seconds",
    "seconds_or_now",
    "table_of",
    "text_of",
    "top_of",
    "where",
    "words",
    "write_json",
]

# A window slows the service down: an hour of it is a mistake.
MAX_SECONDS = 300.0
DEFAULT_SECONDS = 5.0
# Rendering is in no hurry; the service is.
_NICENESS = 10


@dataclass
class Session:
    """One capture while it is taken.

    folder    where artifacts go
    options   checked
    enter     names the phase ("running", "rendering"), shown to whoever waits
    wait      sleeps through the window, showing progress; cancelling it cancels the capture
    """

    worker: Worker
    folder: Path
    options: Mapping[str, Any]
    enter: Callable[[str], None]
    wait: Callable[[float], Awaitable[None]]

    async def ask_reading(self, op: str, *, patience: float, **params: Any) -> dict[str, Any]:
        """Ask for a forked reading, telling how much memory is free: its child may take half of that."""
        room = read_headroom(self.worker.pid)
        return await self.worker.ask(op, patience=patience, room_bytes=room and room.free_bytes, **params)


Option = Callable[[str, object], Any]


@dataclass(frozen=True)
class Column:
    """One column of a result's table: its title, and what a row shows in it."""

    title: str
    show: Callable[[dict[str, Any]], str]
    right: bool = True


def bytes_of(key: str) -> Callable[[dict[str, Any]], str]:
    """Shows the row's `key` as bytes; nothing where it is not known."""
    return lambda row: "" if row.get(key) is None else format_value(row[key], "bytes")


def text_of(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "" if row.get(key) is None else str(row[key])


def where(row: dict[str, Any]) -> str:
    place = f"{row['file']}:{row['line']}" if row["file"] else ""
    return " ".join(filter(None, (place, row["function"])))


HELD_COLUMNS = (
    Column("held", bytes_of("bytes")),
    Column("blocks", text_of("count")),
    Column("where", where, right=False),
)


def _held_at_the_end(result: dict[str, Any]) -> str:
    return f"{format_value(result['total_bytes'], 'bytes')} still held at the end of the window"


async def _always_ready(worker: Worker) -> None:
    return None


def _no_notes(result: dict[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class Kind:
    """A kind of capture.

    options   name -> (default, check); a check returns the value or raises UsageError
    take      makes the artifacts and returns the result's summary
    ready     raises UsageError where this worker cannot be captured so, before anything is opened
    method    how it looks, for the estimate of its cost; a forked census of all objects unless it says otherwise
    agree     raises UsageError for options that do not go together
    headline  what the result is, in words, with the total: from the result
    columns   how the rows of the result's `top` are shown
    notes     more lines to show below the table, from the result
    """

    name: str
    options: Mapping[str, tuple[Any, Option]]
    take: Callable[[Session], Awaitable[dict[str, Any]]]
    ready: Callable[[Worker], Awaitable[None]] = _always_ready
    method: Callable[[Mapping[str, Any]], Method] = lambda options: Method()
    agree: Callable[[Mapping[str, Any]], None] = lambda options: None
    headline: Callable[[dict[str, Any]], str] = _held_at_the_end
    columns: tuple[Column, ...] = HELD_COLUMNS
    notes: Callable[[dict[str, Any]], list[str]] = _no_notes

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults and what was given. Raises UsageError naming the option, its value and what is allowed."""
        unknown = sorted(set(given) - set(self.options))
        if unknown:
            raise UsageError(
                f"a {self.name} capture has no option {unknown[0]!r}", remedy=f"it has {', '.join(self.options)}"
            )
        checked = {
            name: check(name, given[name]) if name in given else default
            for name, (default, check) in self.options.items()
        }
        self.agree(checked)
        return checked


def seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, not a number", remedy=f"choose more than 0 and at most {MAX_SECONDS:g}")
    if not 0 < value <= MAX_SECONDS:  # neither is NaN
        raise UsageError(f"{name} is {value!r:.60}", remedy=f"choose more than 0 and at most {MAX_SECONDS:g}")
    return float(value)


def seconds_or_now(name: str, value: object) -> float:
    """Like `seconds`; 0 asks for this moment instead of a window."""
    return 0.0 if value == 0 and not isinstance(value, bool) else seconds(name, value)


def integer(low: int, high: int) -> Option:
    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{name} is {value!r}", remedy=f"choose a whole number from {low} to {high}")
        return value

    return check


def boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}", remedy="choose true or false")
    return value


def words(*allowed: str) -> Option:
    def check(name: str, value: object) -> str:
        if value not in allowed:
            raise UsageError(f"{name} is {value!r}", remedy=f"choose one of {', '.join(allowed)}")
        return str(value)

    return check


def milliseconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 60_000:
        raise UsageError(f"{name} is {value!r}", remedy="choose more than 0 and at most 60000 (milliseconds)")
    return float(value)


def capture_id(name: str, value: object) -> str:
    """Whether there is such a capture is for the controller to say."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} is {value!r}", remedy="write the id of an earlier capture of this kind")
    return value


# Options of every kind that opens a window.
WINDOW_OPTIONS: Mapping[str, tuple[Any, Option]] = {
    "seconds": (DEFAULT_SECONDS, seconds),
    "max_lag_ms": (1000.0, milliseconds),
}


async def run_reader(
    *arguments: str, output: Path | None = None, patience: float = 120.0, python: str = sys.executable
) -> None:
    """Run `python ARGUMENTS` in a process of its own, standard output into `output`.

    Heavy reading holds the GIL for seconds: here it holds another process's, and gives way to the service where there are
    not enough cores. `output` is there whole or not at all. Raises TargetError with what the process said, OSError.
    """
    partial = output.with_name(output.name + ".partial") if output else None
    stdout = open(partial, "wb") if partial else None  # noqa: SIM115, ASYNC230  # closed below, and opening is not slow
    try:
        process = await asyncio.create_subprocess_exec(
            python, "-P", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=stdout or asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, env=_clean_environment(own=python == sys.executable),
        )  # fmt: skip
        try:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
            async with asyncio.timeout(patience):
                _, said = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
    except TimeoutError as error:
        raise TargetError(
            f"rendering took longer than {patience:g} s and was ended", remedy="take a shorter window"
        ) from error
    finally:
        if stdout:
            stdout.close()
    if process.returncode != 0:
        text = said.decode("utf-8", "replace").strip()[-500:]
        if partial:
            partial.unlink()
        if os.strerror(errno.ENOSPC) in text:  # the reader met the full disk, not we
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise TargetError(f"rendering failed with exit code {process.returncode}: {text}", code="rendering_failed")
    if partial and output:
        partial.replace(output)


def _clean_environment(*, own: bool) -> dict[str, str]:
    """The monitor's environment; a reader is nobody's service and gets no agent.

    own   whether the reader runs by this interpreter: another one has no use for what this one is to import from
    """
    others = () if own else ("PYTHONPATH", "PYTHONHOME")
    left_out = ("DIAGNOSTICS_DIR", "DIAGNOSTICS_AGENT", *others)
    return {key: value for key, value in os.environ.items() if key not in left_out}


def top_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` lines that hold the most, by the stack's leaf, from Profile JSON."""
    sums: dict[int, list[int]] = {}
    for stack, values, _labels in profile["samples"]:
        if stack:
            held = sums.setdefault(stack[0], [0, 0])
            held[0] += values[0]
            held[1] += values[1]
    rows = sorted(sums.items(), key=lambda item: -item[1][0])[:count]
    return [
        {"function": function, "file": file, "line": line, "bytes": held, "count": number}
        for (function, file, line), held, number in (
            (profile["frames"][index], values[0], values[1]) for index, values in rows
        )
    ]


def load_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def profile_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The Profile JSON in an agent's answer, without what the reading put beside it."""
    return {key: reply[key] for key in _PROFILE_KEYS}


_PROFILE_KEYS = ("schema", "kind", "sample_types", "frames", "samples", "time", "duration", "not_covered", "meta")


def table_of(columns: tuple[Column, ...], rows: list[dict[str, Any]]) -> str:
    """Rows as plain text, in aligned columns."""
    cells = [[column.title for column in columns], *([column.show(row) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = (
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        for line in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)
