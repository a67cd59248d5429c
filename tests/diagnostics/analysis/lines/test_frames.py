"""A stack is told by the user's code where it has any, and by nothing that every stack has."""

from __future__ import annotations

import pytest

from diagnostics.analysis.lines.frames import named_by, place_of
from diagnostics.analysis.profile import Frame

LIB = "/usr/lib/python3.11"
SITE = "/srv/venv/lib/python3.11/site-packages"
MINE = Frame("remember", "/srv/app.py", 6)
OURS = Frame("Endpoint.run", f"{SITE}/diagnostics/agent/endpoint.py", 90)
LOOP = [
    Frame("Handle._run", f"{LIB}/asyncio/events.py", 80),
    Frame("BaseEventLoop._run_once", f"{LIB}/asyncio/base_events.py", 1900),
    Frame("Server.run", f"{SITE}/uvicorn/server.py", 60),
    Frame("<module>", "/srv/main.py", 9),
]
DECODES = Frame("JSONDecoder.raw_decode", f"{LIB}/json/decoder.py", 353)
VALIDATES = Frame("TypeAdapter.__init__", f"{SITE}/pydantic/type_adapter.py", 175)
ROUTES = Frame("app", f"{SITE}/starlette/routing.py", 73)
PARSES = Frame("HttpToolsProtocol.on_url", f"{SITE}/uvicorn/protocols/http/httptools_impl.py", 220)
MAKES_TASK = Frame("BaseEventLoop.create_task", f"{LIB}/asyncio/base_events.py", 436)
THREAD = [
    Frame("Thread._bootstrap_inner", f"{LIB}/threading.py", 1045),
    Frame("Thread._bootstrap", f"{LIB}/threading.py", 1002),
]


@pytest.mark.parametrize(
    ("stack", "told"),
    [
        ([MINE, ROUTES, *LOOP], MINE),
        ([DECODES, MINE, ROUTES, *LOOP], MINE),
        ([VALIDATES, MINE, ROUTES, *LOOP], MINE),
        # A service's main module is on every stack of the server's, and made none of it.
        ([VALIDATES, ROUTES, *LOOP], VALIDATES),
        ([PARSES, *LOOP], PARSES),
        # What the service calls in the loop's own file is no beginning.
        ([MAKES_TASK, MINE, *LOOP], MINE),
        ([MINE, *THREAD], MINE),
        ([DECODES, *THREAD], DECODES),
        # The agent allocates for itself; its middleware only passes a request on.
        ([OURS, *THREAD], None),
        ([DECODES, OURS, *THREAD], None),
        ([VALIDATES, OURS, *LOOP], VALIDATES),
        ([MINE, OURS, *LOOP], MINE),
        ([], None),
    ],
)
def test_the_innermost_line_of_the_user_is_named(stack: list[Frame], told: Frame | None) -> None:
    assert named_by(stack, lambda frame: frame is OURS) == told


def test_a_line_is_told_as_its_author_knows_it() -> None:
    assert place_of(MINE) == "remember (app.py:6)"
    assert place_of(VALIDATES) == "TypeAdapter.__init__ (pydantic/type_adapter.py:175)"
    assert place_of(Frame("", "/srv/app.py", 6)) == "app.py:6"
