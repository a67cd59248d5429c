"""Lets the live heap know for which route's stream a block is allocated: by the ledger's variable in the context of now.

The extension reads that variable from memory (`../native/live/route.c`). Before it does, this file compares what it finds with
what Python says: of contexts with one variable and with many, of variables that are set and of one that is not. Where anything
differs samples have no route; sampling goes on.
"""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

__all__ = ["begin"]

# So many that the root of a context's trie has more than the sixteen entries that a bitmap may have, whatever their hashes are.
_MANY = 128


def begin(live: Any, variable: ContextVar[Any]) -> str | None:
    """From now on `live.opened(record, route)` gives a route to what is allocated where `variable` is that record; says why
    not where contexts are not laid out as they should be."""
    why = _few(live) or _many(live) or _few(live)
    return why or live.watch_route(variable, _hash(variable), _callback_code())


def _few(live: Any) -> str | None:
    variable: ContextVar[object] = ContextVar("diagnostics_probe")
    other: ContextVar[object] = ContextVar("diagnostics_probe_not_set")
    context, value = Context(), object()
    context.run(variable.set, value)

    def probed() -> str | None:
        why = _probe(live, context, variable, value, many=False)
        return why or _probe(live, context, other, None, many=False)

    return context.run(probed)


def _many(live: Any) -> str | None:
    variables = [ContextVar[object](f"diagnostics_probe_{number}") for number in range(_MANY)]
    context, values = Context(), [object() for _ in variables[:-1]]
    for variable, value in zip(variables, values, strict=False):
        context.run(variable.set, value)

    def probed() -> str | None:
        expected = [*values, None]
        whys = (_probe(live, context, *each, many=True) for each in zip(variables, expected, strict=True))
        return next(filter(None, whys), None)

    return context.run(probed)


def _probe(live: Any, context: Context, variable: ContextVar[Any], expected: object, *, many: bool) -> str | None:
    """Called within `context`."""
    for code in (_coroutine.__code__, _probe.__code__):
        why: str | None = live.probe_route(context, variable, _hash(variable), expected, many, code, code.co_flags)
        if why:
            return why
    return None


async def _coroutine() -> None:
    """Its code's flags are those of a coroutine."""


def _hash(variable: ContextVar[Any]) -> int:
    """As a context's trie has it: 32 bits, of which one value stands for an error (`hamt_hash` in Python/hamt.c)."""
    whole = hash(variable)
    folded = (whole ^ whole >> 32) & 0xFFFFFFFF
    return 0xFFFFFFFE if folded == 0xFFFFFFFF else folded


def _callback_code() -> CodeType | None:
    """The code that asyncio's loop runs each callback in; None where asyncio is not used."""
    events = sys.modules.get("asyncio.events")
    run = getattr(getattr(events, "Handle", None), "_run", None)
    return getattr(run, "__code__", None)
