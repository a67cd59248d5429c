"""Who is named for growth of memory: the container that holds it, a type that nothing holds, or the line that allocates it."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.analysis.verdict.culprit.holder import holder_of
from diagnostics.analysis.verdict.readings import MIB, Readings
from diagnostics.analysis.verdict.verdict import Verdict, verdict

SECONDS, PACE = 120, 400_000
TRACEMALLOC = "diagnostics capture URL --kind tracemalloc --seconds 10"


def line(start: float, per_second: float = 0.0) -> list[tuple[float, float]]:
    return [(float(second), start + per_second * second) for second in range(SECONDS)]


def told(small: float = 1.0, blocks: float = 0.0, installed: bool | None = None, **captures: Any) -> Verdict:
    """A service whose in-use memory grows by 400 kB a second, `small` of it in small blocks, `blocks` large ones a second."""
    series = {
        "rss_bytes": line(100 * MIB, PACE),
        "in_use_bytes": line(60 * MIB, PACE),
        "python_live_bytes": line(30 * MIB, small * PACE),
        "malloc_live_bytes": line(30 * MIB, (1 - small) * PACE),
        "python_large_blocks": line(1200, blocks),
        "open_streams": line(4),
        "tasks": line(10),
    }
    held = {"rss_bytes": 150 * MIB, "parts": {}}
    return verdict(Readings(state="answering", balance=held, series=series, captures=captures, memray=installed))


def census(*rows: dict[str, Any], seen: float | None = None, grown: float = 10 * PACE, **ways: Any) -> dict[str, Any]:
    """Ten seconds of an objects capture; `seen`: what all objects with a holder gained."""
    hidden = [row for row in rows if row.get("unheld")]
    held = sum(row["bytes_delta"] for row in rows) - sum(row["bytes_delta"] for row in hidden)
    return {
        "seconds": 10.0,
        "bytes_delta": held if seen is None else seen,
        "in_use_delta": grown,
        "top": sorted(rows, key=lambda row: -row["bytes_delta"]),
        "hidden": hidden,
        "paths": ways,
    }


def row(kind: str, held: float, **more: Any) -> dict[str, Any]:
    return {"type": kind, "bytes_delta": int(held), **more}


def way(path: str, samples: int = 12, root: str = "module") -> dict[str, Any]:
    return {"path": path, "samples": samples, "root": root}


CACHE = "module lib.app -> global '_build' -> functools._lru_cache_wrapper"


@pytest.mark.parametrize(
    "kinds", [("dict", "frame", "tuple"), ("list", "str", "app.Row"), ("dict", "builtins.method", "aiohttp.Match")]
)
def test_entries_of_several_types_are_told_by_the_container_that_holds_them(kinds: tuple[str, str, str]) -> None:
    """Each type has a third: none is the culprit, and the cache is."""
    ways = {
        kind: [way(f"{CACHE} -> dict[{n}] -> {kind}", 10), way("module other -> global 'x'", 2)]
        for n, kind in enumerate(kinds)
    }
    found = told(objects=census(*(row(kind, 1.2e6) for kind in kinds), **ways)).finding
    assert (found.word, found.path) == ("retained_objects", f"{CACHE} -> dict[0]")
    assert "_lru_cache_wrapper" in str(found.culprit)
    assert found.path in found.says


def test_of_containers_within_each_other_the_one_with_the_entries_is_the_culprit() -> None:
    """Hundreds of apps were kept in a set, and the list of five routes that each of them has was called the culprit."""
    apps = "class lib.Instrumented._apps -> set[796]"
    way_of_each = f"{apps} -> fastapi.FastAPI.router -> fastapi.APIRouter.routes -> list[5]"
    ways = {kind: [way(f"{way_of_each} -> {kind}")] for kind in ("dict", "function", "list")}
    found = told(objects=census(*(row(kind, 1.2e6) for kind in ways), **ways)).finding
    assert (found.culprit, found.path) == (apps, way_of_each)


def test_native_memory_is_told_with_the_small_objects_that_may_have_it() -> None:
    """A compressor for each request was kept in a list, and "outside of Python's objects" was all that was told."""
    handle = row("zlib.Compress", 40_000, count_delta=400, margin_count=0)
    ways = {"zlib.Compress": [way("module app -> global 'kept' -> list -> zlib.Compress")]}
    more = {"handles": [handle, row("ssl.SSLSession", 3_000, count_delta=30)], "elapsed": 20.0}
    grown = 20 * PACE
    found = told(small=0.0, objects=census(handle, seen=50_000.0, grown=grown, **ways) | more).finding
    assert (found.word, found.confidence, found.culprit) == ("native_growth", "high", None)
    assert "It may be memory of zlib.Compress" in found.says
    assert "400 more came within 20 s, kept alive by module app -> global 'kept' -> list" in found.says
    assert "each would have 19.53 KiB" in found.says  # 400 kB a second for 20 s, by 400 objects
    assert "SSLSession" not in found.says  # of which fewer came than of the others
    assert "It may be" not in told(small=0.0, objects=census(handle, seen=50_000.0, grown=grown)).finding.says
    # Connections that have ended wait for the collector: nothing keeps them.
    waiting = {"zlib.Compress": [way("in a cycle", 7, "cycle"), way("module app -> global 'pool'", 5)]}
    assert (
        "It may be"
        not in told(small=0.0, objects=census(handle, seen=50_000.0, grown=grown, **waiting) | more).finding.says
    )
    # Too many for so little memory: they are something else's.
    many = {"handles": [row("re.Match", 40_000, count_delta=100_000)], "elapsed": 20.0}
    assert "It may be" not in told(small=0.0, objects=census(handle, seen=50_000.0, grown=grown) | many).finding.says


@pytest.mark.parametrize(
    ("part", "series", "word"),
    [
        ("other", {}, "native_growth"),
        ("mapped_files", {"shared_bytes": 10.0, "mapped_bytes": 10.0}, "shared_memory_growth"),
    ],
    ids=["mapped by a library", "shared memory"],
)
def test_mappings_are_told_with_the_small_objects_that_may_have_them(
    part: str, series: dict[str, float], word: str
) -> None:
    """Arrays of pyarrow's, or mmap objects, kept in a list: nothing said what keeps the mappings."""
    rising = {"rss_bytes": line(100 * MIB, PACE), **{name: line(start * MIB, PACE) for name, start in series.items()}}
    still = {name: line(30 * MIB) for name in ("in_use_bytes", "python_live_bytes", "malloc_live_bytes", "tasks")}
    held = {"rss_bytes": 150 * MIB, "parts": {part: 60 * MIB}}
    held["mapped"] = [{"what": "/dev/shm", "bytes": 60 * MIB, "mappings": 400}]
    handle = row("mmap.mmap", 40_000, count_delta=400, margin_count=0)
    ways = {"mmap.mmap": [way("module app -> global 'maps' -> list[400] -> mmap.mmap")]}
    seen = census(handle, seen=50_000.0, grown=0.0, **ways) | {"handles": [handle], "elapsed": 20.0}
    found = verdict(
        Readings(state="answering", balance=held, series=rising | still, captures={"objects": seen})
    ).finding
    assert (found.word, found.path) == (word, "module app -> global 'maps' -> list[400] -> mmap.mmap")
    assert "It may be memory of mmap.mmap" in found.says
    assert "each would have 19.53 KiB" in found.says


def test_what_threads_keep_for_themselves_is_neither_native_nor_unknown() -> None:
    """A list in a threading.local of pool threads is gone in a forked child: it was "native", with high confidence."""
    grown = 10 * PACE
    seen = census(row("dict", 20_000), grown=grown)
    assert told(small=0.1, objects=seen).word == "native_growth"
    found = told(small=0.1, objects=seen | {"freed_delta": int(0.9 * grown)}).finding
    assert (found.word, found.confidence, found.culprit) == ("retained_objects", "medium", "data of single threads")
    assert "threading.local" in found.says
    assert found.next == TRACEMALLOC
    assert told(small=0.1, objects=seen | {"freed_delta": -5_000}).word == "native_growth"


def test_a_holder_of_less_than_half_is_not_named_and_neither_is_a_whole_module() -> None:
    rows = [row("dict", 2e6), row("list", 1.9e6)]
    ways = {"dict": [way("module app -> global 'a' -> dict")], "list": [way("module app -> global 'b' -> list")]}
    assert holder_of({"paths": ways}, rows, 2.1e6) is None
    found = told(objects=census(row("dict", 1.5e6), row("list", 1.5e6), **ways)).finding
    assert (found.culprit, found.path) == (None, None)


@pytest.mark.parametrize("kind", ["multidict._multidict.istr", "int", "bytes"])
def test_a_type_that_no_container_holds_is_named_though_the_collector_cannot_see_it(kind: str) -> None:
    """Header names that a library loses references to: the request's own objects were called the cause, or nothing was."""
    hidden = row(kind, 3.5e6, unheld=True)
    found = told(objects=census(hidden, row("dict", 0.1e6))).finding
    assert (found.word, found.culprit, found.unheld) == ("retained_objects", kind, True)
    assert "no container of Python's holds it" in found.says
    assert found.next == TRACEMALLOC


def test_small_blocks_that_hold_no_object_are_a_librarys() -> None:
    """Tables of a C extension come from Python's own allocator: they were called retained objects."""
    found = told(small=0.9, blocks=20, objects=census(row("dict", 50_000))).finding
    assert (found.word, found.culprit) == ("native_growth", None)
    # Where the blocks could not be read nobody knows: the old answer stands.
    unknown = {**census(row("dict", 50_000)), "hidden": None}
    assert told(small=0.9, objects=unknown).word == "retained_objects"


def test_what_c_code_holds_is_told_with_the_object_that_it_holds() -> None:
    held = "(a reference that no object has: C code's) -> method Parser.on_error -> redis.Parser"
    ways = {kind: [way(f"{held} -> {kind}", 12, "lost")] for kind in ("dict", "list", "app.Reader")}
    found = told(objects=census(*(row(kind, 1.2e6) for kind in ways), **ways)).finding
    assert (found.path, found.unheld) == (held, True)
    assert "redis.Parser" in str(found.culprit)


def test_what_is_a_dozen_small_types_is_told_by_its_holder_though_only_the_largest_are_traced() -> None:
    """A connection that a library lost was transports, readers, sockets: the parser that holds them had "too little"."""
    held = "(a reference that no object has: C code's) -> method Parser.on_error -> redis.Parser"
    traced = {kind: [way(f"{held}._stream -> {kind}", 10, "lost"), way("(garbage)", 2, "cycle")] for kind in "abcdefgh"}
    rows = [row(kind, 2.6e5) for kind in traced]
    small = [row(kind, 2e5) for kind in ("method", "redis.Parser", "asyncio.StreamReader")]
    found = told(objects=census(*rows, *small, **traced)).finding
    assert (found.path, found.unheld) == (f"{held}._stream", True)
    # Of what is mostly not traced nothing is taken to be known.
    few = census(*rows[:2], *(row(f"t{n}", 3e5) for n in range(9)), **traced)
    assert told(objects=few).finding.culprit is None


def test_memory_in_c_beside_the_objects_of_a_library_does_not_hide_their_holder() -> None:
    """A parser with its reader in C: four tenths of the growth were in no object, and what held the rest was not named."""
    held = "(a reference that no object has: C code's) -> method Parser.on_error -> redis.Parser"
    ways = {kind: [way(f"{held}.{kind} -> {kind}", 12, "lost")] for kind in "abcdef"}
    rows = [row(kind, 3.3e5) for kind in ways]
    others = {"dict": [way("module app -> global 'seen' -> dict")]}
    found = told(small=0.6, objects=census(*rows, row("dict", 3e5), **ways, **others)).finding
    assert found.path == held
    # Half of what the objects gained is not enough where they are half of the growth.
    apart = {kind: way_ for kind, way_ in ways.items() if kind in "abc"}
    found = told(small=0.6, objects=census(*rows[:4], row("dict", 1.2e6), **apart, **others)).finding
    assert (found.culprit, found.path) == (None, None)


def window(held: float, **more: Any) -> dict[str, Any]:
    first = {"function": "parse", "file": "/srv/app.py", "line": 10, "bytes": int(held), "count": 100, **more}
    return {
        "seconds": 10.0,
        "top": [{"function": "", "file": "", "line": 0, "bytes": int(held * 3), "count": 1}, first],
    }


@pytest.mark.parametrize("kind", ["tracemalloc", "memray"])
def test_the_line_that_allocates_what_no_container_holds_is_named_where_it_has_half(kind: str) -> None:
    lost = census(row("int", 3.5e6), int=[way("(held by a reference that no object has)", 12, "lost")])
    found = told(objects=lost, **{kind: window(3e6)}).finding
    assert (found.culprit, found.path) == ("int", "parse (app.py:10)")
    few = told(objects=lost, **{kind: window(1e6)}).finding
    assert (few.path, few.next) == (None, TRACEMALLOC)
    # Under the tracer the service was slower: this is nearly all that the window shows.
    slowed = told(objects=lost, **{kind: {**window(1.2e6), "total_bytes": 1.3e6}}).finding
    assert slowed.path == "parse (app.py:10)"
    other = told(objects=lost, **{kind: {**window(1.2e6), "total_bytes": 4e6}}).finding
    assert other.path is None


def test_native_growth_is_told_with_the_line_of_python_and_the_function_in_c() -> None:
    objects = census(row("dict", 1000))
    found = native(memray=True, objects=objects).finding
    assert (found.word, found.culprit, found.next) == ("native_growth", None, None)  # the cause's own: memray --native
    found = native(
        memray=True, objects=objects, memray_window={**window(3e6, native="upb_size"), "view": "leaked"}
    ).finding
    assert (found.culprit, found.path) == ("parse (app.py:10)", "upb_size")
    assert "upb_size" in found.says


def native(memray: bool, objects: dict[str, Any], memray_window: dict[str, Any] | None = None) -> Verdict:
    captures = {"objects": objects, **({"memray": memray_window} if memray_window else {})}
    series = {
        "rss_bytes": line(100 * MIB, PACE), "in_use_bytes": line(60 * MIB, PACE), "python_live_bytes": line(30 * MIB),
        "malloc_live_bytes": line(30 * MIB, PACE), "python_large_blocks": line(1200), "open_streams": line(4),
    }  # fmt: skip
    held = {"rss_bytes": 150 * MIB, "parts": {}}
    return verdict(Readings(state="answering", balance=held, series=series, captures=captures, memray=memray))


def test_where_memray_is_not_installed_the_next_step_says_so() -> None:
    found = native(memray=False, objects=census(row("dict", 1000))).finding
    assert (found.word, found.next) == ("native_growth", "pip install memray")
    # What comes from Python's allocators tracemalloc sees as well.
    assert told(small=0.9, installed=False, objects=census(row("dict", 50_000))).finding.next == TRACEMALLOC


@pytest.mark.parametrize(
    ("path", "confidence", "says"),
    [
        (
            "global 'seen' -> deque[900 of at most 2000] -> bytes",
            "low",
            "full in 55 s, with 20.98 MiB more. That fits.",
        ),
        ("app.page -> functools._lru_cache_wrapper of at most 2000 -> dict[900] -> bytes", "low", "full in 55 s"),
        (
            "global 'seen' -> deque[900 of at most 9000000] -> bytes",
            "high",
            "takes 9,000,000 entries at most and had 900",
        ),
        (
            "global 'seen' -> deque[900 of at most 900] -> bytes",
            "high",
            None,
        ),  # full: it does not fill, its entries grow
        ("deque[3 of at most 5] -> app.Room.members -> dict[900] -> bytes", "high", None),  # another container has them
        ("global 'seen' -> deque[900] -> bytes", "high", None),
        # How many entries came is not known where each may have several.
        ("global 'seen' -> deque[900 of at most 2000] -> app.Row.cells -> tuple[8] -> bytes", "high", None),
    ],
)
def test_a_container_that_is_full_soon_is_no_leak(path: str, confidence: str, says: str | None) -> None:
    """A deque with `maxlen` that fills at a steady pace was a leak, with high confidence, until it was full."""
    grew = row("bytes", 10 * PACE, count_delta=200)
    found = told(objects=census(grew, bytes=[way(f"module app -> {path}")])).finding
    assert (found.word, found.confidence, found.culprit) == ("retained_objects", confidence, "bytes")
    assert ("That container takes" in found.says) == (says is not None)
    assert says is None or says in found.says
