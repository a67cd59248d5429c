"""Native stacks are told by the line of Python that called into C, and by the function in C that has a name."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.monitor.captures.kinds.profile_json import callers_of, top_of
from diagnostics.monitor.captures.kinds.tables import where

VALIDATES = ("__init__", "/site-packages/pydantic/type_adapter.py", 175)
PARSES = ("parse", "/srv/app.py", 10)
NAMELESS = ("<unknown>", "<unknown>", 0)
EVALUATES = ("_PyEval_EvalFrameDefault", "Python/ceval.c", 4760)


def profile(*stacks: tuple[list[tuple[str, str, int]], int]) -> dict[str, Any]:
    frames = list({frame: None for stack, _ in stacks for frame in stack})
    samples = [[[frames.index(frame) for frame in stack], [held, 1], {}] for stack, held in stacks]
    return {"frames": [list(frame) for frame in frames], "samples": samples}


def test_a_library_without_symbols_is_told_by_who_called_it() -> None:
    """Rust's frames have no names in a wheel: all of the growth was booked as `<unknown>`."""
    (first, second) = callers_of(
        profile(([NAMELESS, NAMELESS, EVALUATES, VALIDATES, PARSES], 3000), ([EVALUATES, PARSES], 20))
    )
    assert (first["function"], first["line"], first["bytes"], first["native"]) == ("__init__", 175, 3000, None)
    assert second["function"] == "parse"


@pytest.mark.parametrize(
    ("innermost", "native"),
    [
        ([("upb_ByteSize", "upb.c", 7)], "upb_ByteSize"),
        ([("malloc", "", 0), ("decode_tuple", "msgspec.c", 9)], "decode_tuple"),
        ([("PyBytes_FromString", "Objects/bytesobject.c", 1)], None),
    ],
)
def test_the_function_in_c_is_the_first_that_is_no_allocator(innermost: list[Any], native: str | None) -> None:
    (row,) = callers_of(profile(([*innermost, EVALUATES, PARSES], 100)))
    assert (row["native"], row["file"]) == (native, "/srv/app.py")


def test_a_librarys_line_is_told_with_the_services_own_line_that_called_it() -> None:
    """ "Allocated by __init__ (pydantic/type_adapter.py:175)": whose call that was, nobody knew."""
    loop = ("run", "/usr/lib/python3.11/asyncio/runners.py", 190)
    main = ("main", "/srv/main.py", 3)
    for told in (callers_of, top_of):
        stack = [VALIDATES, EVALUATES, PARSES, loop, EVALUATES, main]
        (row,) = told(profile((stack, 3000)))
        assert row["caller"] == {"function": "parse", "file": "/srv/app.py", "line": 10}
        assert where(row).endswith("__init__ (called from /srv/app.py:10 parse)")
        (own,) = told(profile(([PARSES, main], 3000)))
        assert own["caller"] is None
        assert "called" not in where(own)
    # Where no line of its own has half of it, none is named.
    others = [("other", "/srv/app.py", number) for number in range(5)]
    (row,) = callers_of(profile(*(([VALIDATES, other], 100) for other in others)))
    assert row["caller"] is None


def test_bytes_without_a_line_of_python_are_a_row_that_says_so() -> None:
    (row,) = callers_of(profile(([NAMELESS], 100)))
    assert (row["function"], row["file"]) == ("(no line of Python)", "")
