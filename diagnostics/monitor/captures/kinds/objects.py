"""objects: live objects by type, the types that grow, and the paths that keep them alive.

Two censuses, `seconds` apart, each in a forked child, are subtracted here; the second child also traces samples of the types
that grew most back to a root. `seconds` 0 is one census, whose largest types are traced by another child.

Artifacts: `profile.json` (the later census), `objects.json` (all types with their growth, all paths), `objects.txt`.
"""

from __future__ import annotations

from typing import Any

from .kind import Kind, Session
from .margins import Margins, share_of
from .options import DEFAULT_SECONDS, boolean, seconds_or_now
from .profile_json import write_json
from .tables import Column, bytes_of, table_of, text_of

__all__ = ["KIND", "grown", "unheld", "why_incomparable", "worth_explaining"]

# The agent kills a forked walk after three minutes.
_PATIENCE_SECONDS = 200.0
_TOP = 20
# Of each type that grew so many objects are traced.
_SAMPLES = 12
# So many types, because one leaked entry often consists of objects of several types.
_EXPLAINED = 8
_LEAST_SHARE = 0.02
# Objects of fewer than so many more come and go with the connections; so many types of them are told.
_MANY, _HANDLES = 20, 3
_WORTH_A_NOTE = 64 * 1024
# Types of the program itself (classes, functions and their parts): always alive. They are explained only where they grow: as
# handlers do, and classes that are made while it runs.
_PROGRAM = frozenset(
    {
        "type", "abc.ABCMeta", "function", "code", "cell", "property", "module", "method", "staticmethod", "classmethod",
        "builtin_function_or_method", "method_descriptor", "wrapper_descriptor", "getset_descriptor",
        "member_descriptor", "classmethod_descriptor", "weakref.ReferenceType",
    }
)  # fmt: skip

Types = dict[str, list[int]]


async def take(session: Session) -> dict[str, Any]:
    window = session.options["seconds"]
    before = await _census(session, first=True) if window else None
    await session.wait(window)
    # The second look's child traces what grew as well: to find it again in a third one would take as long as to count it.
    # An agent of an older release cannot do so.
    samples = _SAMPLES if session.options["paths"] and before is not None and "at" in before else None
    after = await _census(session, again=before is not None, samples=samples)
    in_use_delta, elapsed = _between(before, after)
    not_covered = list(after["not_covered"])
    incomparable = why_incomparable(before, after) if before else None
    if incomparable is not None:
        not_covered.insert(0, f"what grew: {incomparable}")
        before = None
    if before and before["numbers"] != after["numbers"]:
        for census in (before, after):
            census["types"] = {name: row for name, row in census["types"].items() if name not in ("int", "float")}
    margins = Margins(before, after)
    if margins.sampled is not None:
        not_covered.insert(0, margins.sampled)
    rows = [row | margins.of(row["type"]) for row in grown(before["types"] if before else None, after["types"])]
    hidden, why_not_hidden = unheld(before, after) if before else (None, None)
    if why_not_hidden is not None:
        not_covered.append(f"small objects that nothing refers to: {why_not_hidden}")
    handles = _handles(rows, after) if before else []
    paths: dict[str, Any] = {}
    if session.options["paths"]:
        session.enter("tracing")
        types = list(dict.fromkeys([*worth_explaining(rows), *(row["type"] for row in handles)]))
        paths = await _paths(session, types, before, after)
    result = {
        "time": after["time"],
        "seconds": window,
        # From one reading of the in-use bytes to the other: the censuses themselves take time as well.
        "elapsed": round(elapsed, 3) if before and elapsed is not None else None,
        "total_bytes": sum(row["bytes"] for row in rows),
        "total_count": after["objects"],
        "bytes_delta": sum(row["bytes_delta"] for row in rows) if before else None,
        "margin_bytes": margins.total_bytes,
        # In-use bytes gained by the allocators between the censuses: the scale for the growth of types.
        "in_use_delta": in_use_delta if before else None,
        "top": _top(rows, hidden or []),
        "hidden": hidden,
        "freed_delta": _freed_delta(before, after),
        "handles": handles,
        "paths": paths,
        "not_covered": not_covered,
    }
    session.enter("rendering")
    write_json(session.folder / "profile.json", _profile(after, window))
    write_json(
        session.folder / "objects.json", {"time": after["time"], "seconds": window, "types": rows, "paths": paths}
    )
    text = f"{_headline(result)}\n\n{table_of(_COLUMNS, rows)}\n" + "".join(f"{line}\n" for line in _notes(result))
    (session.folder / "objects.txt").write_text(text, encoding="utf-8")
    return result


def _top(rows: list[dict[str, Any]], hidden: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows of the result: the types that grew and the types that no container holds, most bytes first."""
    unseen = [{"function": row["type"], "file": "", "line": 0, "bytes": None, "count": None, **row} for row in hidden]
    grew = [row for row in rows if row["bytes_delta"] and abs(row["bytes_delta"]) >= row["margin_bytes"]]
    return sorted([*grew, *unseen], key=lambda row: -row["bytes_delta"])[:_TOP] or rows[:_TOP]


def _freed_delta(before: dict[str, Any] | None, after: dict[str, Any]) -> int | None:
    """How much more other threads' own data had at the second look than at the first: it is gone in a forked child."""
    first, second = (before or {}).get("freed"), after.get("freed")
    return None if first is None or second is None else int(second - first)


def _handles(rows: list[dict[str, Any]], census: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the types whose objects may have memory in C beside their size, those that grew most in number."""
    names = frozenset(census.get("handles") or ())  # an agent of an older release does not tell
    grew = [row for row in rows if row["type"] in names and row["count_delta"] - row.get("margin_count", 0) >= _MANY]
    return sorted(grew, key=lambda row: -row["count_delta"])[:_HANDLES]


async def _census(
    session: Session, *, first: bool = False, again: bool = False, samples: int | None = None
) -> dict[str, Any]:
    more = {} if samples is None else {"samples": samples}
    return await session.ask_reading("objects.census", patience=_PATIENCE_SECONDS, first=first, again=again, **more)


def _between(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[int | None, float | None]:
    """(bytes that in-use memory gained between the two looks, seconds between them); None where that is not known.

    Read as each look began, so that it is the time and the growth that the objects are of. An agent of an older release does
    not tell.
    """
    if before is None or "at" not in before or "at" not in after:
        return None, None
    known = before["in_use"] is not None and after["in_use"] is not None
    return (after["in_use"] - before["in_use"] if known else None), after["at"] - before["at"]


async def _paths(
    session: Session, types: list[str], before: dict[str, Any] | None, after: dict[str, Any]
) -> dict[str, Any]:
    """The ways to objects of these types: those that the second look's child has found, or those that are looked for now."""
    if before is not None and "paths" in after:
        return {name: after["paths"][name] for name in types if name in after["paths"]}
    session.enter("tracing")
    reply = await session.ask_reading(
        "objects.explain", patience=_PATIENCE_SECONDS, types=types, new=before is not None
    )
    paths: dict[str, Any] = reply["paths"]
    return paths


def why_incomparable(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """Why two censuses cannot be subtracted; None where they can: both are complete, and of the same sample."""
    if before["partial"] is not None or after["partial"] is not None:
        return "a census was ended at its deadline, so the two cannot be subtracted"
    if share_of(before) != share_of(after):
        return "the two censuses looked at different shares of the objects: another capture came between them"
    return None


def unheld(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, str | None]:
    """The types whose small objects grew by more than Python containers hold, most bytes first; or None and why.

    `before` and `after` are answers of the census. Its objects are counted through their holders, its blocks in the
    allocator: objects that are in blocks only are held by C code without GC support, or leaked by it.
    """
    for census in (before, after):
        if census["blocks"]["unknown"] is not None:
            return None, census["blocks"]["unknown"]
    margins, rows = Margins(before, after), []
    for name, (count, held) in after["blocks"]["types"].items():
        was_count, was_held = before["blocks"]["types"].get(name, (0, 0))
        seen = after["types"].get(name, (0, 0))[0] - before["types"].get(name, (0, 0))[0]
        more = count - was_count
        seen += margins.of(name)["margin_count"]
        # A census may lack numbers. Where containers hold fewer objects than before, `seen` counts as 0.
        if (not after["numbers"] and name in ("int", "float")) or more <= max(0, seen) or held <= was_held:
            continue
        unseen = more - max(0, seen)
        row = {"type": name, "count_delta": unseen, "bytes_delta": (held - was_held) * unseen // more, "unheld": True}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["bytes_delta"])[:_TOP], None


def grown(before: Types | None, after: Types) -> list[dict[str, Any]]:
    """One row a type, the one that grew by most bytes first; without `before` the largest first.

    Both are type -> [count, bytes]. A type that is in `before` only is a row with 0 now.
    """
    rows = []
    for name in sorted({*(before or {}), *after}):
        count, held = after.get(name, (0, 0))
        was_count, was_held = (before or {}).get(name, (0, 0))
        rows.append(
            {
                "function": name,
                "file": "",
                "line": 0,
                "type": name,
                "bytes": held,
                "count": count,
                "bytes_delta": held - was_held if before is not None else None,
                "count_delta": count - was_count if before is not None else None,
            }
        )
    return sorted(rows, key=lambda row: (-(row["bytes_delta"] or 0), -row["bytes"]))


def worth_explaining(rows: list[dict[str, Any]]) -> list[str]:
    """The few types to explain: those that grew by at least `_LEAST_SHARE` of the first row's growth; or the largest."""
    if rows and rows[0]["bytes_delta"] is not None:
        known = [row for row in rows if row["bytes_delta"] >= row.get("margin_bytes", 0)]
        least = max([1, *(row["bytes_delta"] * _LEAST_SHARE for row in known[:1])])
        data = [row for row in known if row["bytes_delta"] >= least]
    else:
        data = [row for row in rows if row["type"] not in _PROGRAM]
    return [row["type"] for row in data[:_EXPLAINED]]


def _profile(census: dict[str, Any], window: float) -> dict[str, Any]:
    """The census as Profile JSON: each type is a stack of one frame without a file. `window`: seconds."""
    return {
        "schema": "highwater.profile/1",
        "kind": "objects",
        "sample_types": [["inuse_space", "bytes"], ["inuse_objects", "count"]],
        "frames": [[name, "", 0] for name in census["types"]],
        "samples": [[[place], [held, count], {}] for place, (count, held) in enumerate(census["types"].values())],
        "time": census["time"],
        "duration": window,
        "not_covered": census["not_covered"],
        "meta": {"objects": census["objects"], "census_seconds": round(census["seconds"], 3)},
    }


def _headline(result: dict[str, Any]) -> str:
    words = f"{result['total_count']} objects, {bytes_of('total_bytes')(result)}"
    if result["bytes_delta"] is None:
        return f"{words} now"
    return f"{words}, {bytes_of('bytes_delta')(result)} more than {result['seconds']:g} s before"


def _notes(result: dict[str, Any]) -> list[str]:
    unseen = [row for row in result.get("hidden") or () if row["bytes_delta"] >= _WORTH_A_NOTE]
    notes = [
        f"{row['count_delta']} more {row['type']} ({bytes_of('bytes_delta')(row)}) that no container of Python's holds: "
        "C code keeps them, or has lost them"
        for row in unseen[:3]
    ]
    return notes + [
        f"why {name}: {way['path']} ({way['samples']} of {sum(other['samples'] for other in ways)} samples)"
        for name, ways in result["paths"].items()
        for way in ways[:3]
    ]


def _grown_by(row: dict[str, Any]) -> str:
    margin = row.get("margin_bytes")
    return bytes_of("bytes_delta")(row) + (f" ± {bytes_of('margin_bytes')(row)}" if margin else "")


_COLUMNS = (
    Column("grown by", _grown_by),
    Column("objects", text_of("count_delta")),
    Column("held", bytes_of("bytes")),
    Column("objects", text_of("count")),
    Column(
        "type", lambda row: f"{row['type']} (in no container)" if row.get("unheld") else str(row["type"]), right=False
    ),
)

KIND = Kind(
    name="objects",
    options={"seconds": (DEFAULT_SECONDS, seconds_or_now), "paths": (True, boolean)},
    take=take,
    headline=_headline,
    columns=_COLUMNS,
    notes=_notes,
)
