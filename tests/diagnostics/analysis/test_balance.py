"""The split of resident memory, over any figures that a kernel and allocators may tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diagnostics.analysis.balance import PARTS, Balance, Claims, Regions, balance, tracemalloc_cost

MIB = 2**20
sizes = st.integers(0, 2**40)
maybe = st.none() | sizes


@st.composite
def regions(draw: st.DrawFn) -> Regions:
    files, stacks, heaps, anonymous, special = (draw(sizes) for _ in range(5))
    return Regions(
        rss=files + stacks + heaps + anonymous + special,
        files=files,
        shared=draw(st.integers(0, files)),
        stacks=stacks,
        heaps=heaps,
        heaps_size=draw(sizes),
        anonymous=anonymous,
    )


@example(Regions(10, 0, 0, 0, 0, 0, 10), Claims(malloc_live=0, malloc_mapped=1, malloc_free=1), 0)  # torn figures
@given(st.none() | regions(), st.builds(Claims, maybe, maybe, maybe, maybe, maybe, maybe), sizes)
def test_parts_are_never_negative_and_add_up_to_rss(found: Regions | None, claims: Claims, rss: int) -> None:
    split = balance(rss, found, claims)
    assert tuple(split.parts) == PARTS
    known = [held for held in split.parts.values() if held is not None]
    assert all(held >= 0 for held in known)
    assert sum(known) == split.rss == (found.rss if found else rss)
    assert set(split.to_json()["read"]) == {name for name, held in split.parts.items() if held is not None}


# A service with 200 MiB resident, whose figures fit together.
KERNEL = Regions(
    rss=200 * MIB, files=30 * MIB, shared=2 * MIB, stacks=1 * MIB, heaps=60 * MIB, heaps_size=70 * MIB, anonymous=109 * MIB
)  # fmt: skip
TOLD = Claims(
    python_live=40 * MIB, python_arenas=50 * MIB, malloc_live=90 * MIB, malloc_mapped=55 * MIB, malloc_free=35 * MIB, tracers=0
)  # fmt: skip


def split(kernel: Regions | None = KERNEL, **told: int | None) -> Balance:
    return balance(200 * MIB, kernel, Claims(**{**{name: getattr(TOLD, name) for name in Claims.__slots__}, **told}))


def mebibytes(found: Balance) -> dict[str, Any]:
    return {name: None if held is None else held // MIB for name, held in found.parts.items()}


def test_claims_are_met_from_the_mappings_that_their_memory_can_be_in() -> None:
    assert mebibytes(split()) == {
        "python_live": 40,
        "python_free": 10,
        "malloc_live": 90,
        "malloc_free": 25,  # of 35 that malloc calls free, 10 were given back
        "mapped_files": 30,
        "stacks": 1,
        "tracers": 0,
        "other": 4,
    }


def test_tracers_are_taken_out_of_malloc() -> None:
    found = mebibytes(split(tracers=20 * MIB))
    assert (found["tracers"], found["malloc_live"], found["other"]) == (20, 70, 4)


def test_live_memory_that_was_never_touched_is_not_resident_and_not_shown() -> None:
    found = mebibytes(split(malloc_live=1090 * MIB, malloc_mapped=1055 * MIB))
    assert (found["malloc_live"], found["malloc_free"], found["other"]) == (35 + 59, 25, 0)


def test_an_arena_that_cannot_be_recognised_is_found_in_anonymous_memory() -> None:
    # 64 MiB more in an arena that is full: nothing is reserved behind it that it could be known by.
    kernel = Regions(264 * MIB, 30 * MIB, 0, 1 * MIB, 60 * MIB, 70 * MIB, 173 * MIB)
    found = mebibytes(split(kernel, malloc_live=154 * MIB))
    assert (found["malloc_live"], found["malloc_free"], found["other"]) == (154, 25, 4)


@pytest.mark.parametrize(
    ("told", "unknown"),
    [
        ({"python_live": None, "python_arenas": None}, {"python_live", "python_free"}),
        ({"malloc_live": None, "malloc_mapped": None, "malloc_free": None}, {"malloc_live", "malloc_free"}),
        ({"malloc_mapped": None}, {"malloc_free"}),
        ({"tracers": None}, {"tracers"}),
    ],
)
def test_what_nobody_tells_is_unknown_and_its_memory_is_in_other(told: dict[str, None], unknown: set[str]) -> None:
    found = split(**told)
    assert {name for name, held in found.parts.items() if held is None} == unknown
    if unknown & {"python_live", "malloc_live"}:
        assert found.parts["other"] > 50 * MIB


def test_without_an_agent_the_kernels_parts_are_known() -> None:
    found = mebibytes(balance(0, KERNEL, Claims.from_reading(None)))
    assert {name: held for name, held in found.items() if held is not None} == {
        "mapped_files": 30,
        "stacks": 1,
        "other": 169,
    }


def test_without_the_kernel_the_allocators_parts_are_known() -> None:
    found = mebibytes(split(None))
    assert found["mapped_files"] is found["stacks"] is found["malloc_free"] is None
    assert (found["python_live"], found["malloc_live"], found["other"]) == (40, 90, 60)


@pytest.mark.parametrize(
    ("reading", "tracers"),
    [
        ({"window": None, "tracemalloc_bytes": 0}, 0),
        ({"window": "tracemalloc", "tracemalloc_bytes": 24_389_232}, 48_390_168),
        ({"window": "memray", "tracemalloc_bytes": 0}, None),  # memray does not tell what its tables take
        ({"window": None}, None),  # an agent of another make
    ],
)
def test_tracers_are_read_from_the_agent(reading: dict[str, Any], tracers: int | None) -> None:
    assert Claims.from_reading(reading).tracers == tracers


@pytest.mark.parametrize(
    # Measured with Python 3.11, 3.12 and 3.13: what tracemalloc counts, and what malloc has less after it stopped.
    ("counted", "taken"),
    [(582_768, 1_068_928), (2_649_200, 5_056_112), (24_389_232, 48_391_280), (71_955_056, 129_564_544)],
)
def test_the_cost_of_tracemalloc_is_what_malloc_gets_back(counted: int, taken: int) -> None:
    assert tracemalloc_cost(counted) == pytest.approx(taken, rel=0.01)


def test_the_cost_of_nothing_is_nothing() -> None:
    assert [tracemalloc_cost(counted) for counted in (0, 11)] == [0, 11]
