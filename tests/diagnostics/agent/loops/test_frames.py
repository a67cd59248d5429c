"""To read the locals of a frame must change nothing in it: what its function deletes is freed, what it keeps stays."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, coroutine
from typing import Any

import diagnostics
from diagnostics.agent.loops.frames import locals_of


class Thing:
    """Something that can be referred to weakly."""


class ThingError(Exception):
    """The same, of an error."""


@coroutine
def pause() -> Iterator[None]:
    yield


def frame_of(suspended: Coroutine[Any, Any, None]) -> FrameType:
    """The coroutine's frame, when it has run to its first pause."""
    suspended.send(None)
    return suspended.cr_frame  # type: ignore[attr-defined, no-any-return]


@contextmanager
def without_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_what_a_coroutine_deletes_is_freed_though_it_was_read_before() -> None:
    async def work() -> None:
        thing = Thing()
        wanted.append(weakref.ref(thing))
        await pause()
        del thing
        await pause()

    wanted: list[weakref.ref[Thing]] = []
    working = work()
    assert isinstance(locals_of(frame_of(working))["thing"], Thing)
    working.send(None)
    assert wanted[0]() is None
    working.close()


def test_an_error_that_was_read_as_a_local_is_freed_with_its_frames() -> None:
    async def work() -> None:
        problem: ThingError | None = None
        try:
            try:
                raise ThingError
            except ThingError as error:
                problem = error
            wanted.append(weakref.ref(problem))
            await pause()
            raise problem
        finally:
            del problem

    wanted: list[weakref.ref[ThingError]] = []
    with without_collector():
        working = work()
        assert isinstance(locals_of(frame_of(working))["problem"], ThingError)
        with suppress(ThingError):
            working.send(None)
        del working
        assert wanted[0]() is None


def test_what_the_program_itself_has_of_its_locals_stays() -> None:
    async def work() -> None:
        thing = Thing()
        own = locals()
        await pause()
        assert own["thing"] is thing

    working = work()
    assert "thing" in locals_of(frame_of(working))
    with suppress(StopIteration):
        working.send(None)


def test_the_namespace_of_a_module_is_not_emptied() -> None:
    space: dict[str, Any] = {"locals_of": locals_of, "sys": sys}
    exec("value = 7\nread = dict(locals_of(sys._getframe()))\nstill = value", space)  # a module's body
    assert (space["read"]["value"], space["still"]) == (7, 7)


def test_a_function_that_a_debugger_follows_keeps_its_locals() -> None:
    """Until Python 3.12 a debugger's dictionary of them is written back into the frame."""

    def follow(frame: FrameType, event: str, value: object) -> Any:
        if frame.f_code is not work.__code__:
            return None
        frame.f_trace = follow
        read.append(set(locals_of(frame)))
        return follow

    def work() -> int:
        first = 1
        second = 2
        return first + second

    read: list[set[str]] = []
    before = sys.gettrace()
    sys.settrace(follow)
    try:
        result = work()
    finally:
        sys.settrace(before)
    assert result == 3
    assert {"first", "second"} in read


def test_nothing_else_in_the_agent_reads_them() -> None:
    folder = Path(diagnostics.__file__).parent
    readers = [path.name for path in folder.rglob("*.py") if ".f_locals" in path.read_text(encoding="utf-8")]
    assert readers == ["frames.py"]
