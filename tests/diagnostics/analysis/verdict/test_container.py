"""One container on a way is chosen, for its name as well as for its bound."""

from __future__ import annotations

import pytest

from diagnostics.analysis.verdict.culprit.container import container_of, container_on

CACHE = "functools._lru_cache_wrapper"


@pytest.mark.parametrize(
    ("before", "name", "behind", "length", "most"),
    [
        ("module app", "global 'seen' -> deque[900 of at most 2000]", "bytes", 900, 2000),
        ("module app", "global 'ring' -> list[90 of at most 4000]", "app.Row -> str", 90, 4000),
        ("app.page", f"{CACHE} of at most 128 -> dict[90]", "str", 90, 128),
        ("app.page", f"{CACHE} without a bound -> dict[90]", "str", 90, None),
        ("deque[3 of at most 5]", "app.Room.members -> dict[900]", "bytes", 900, None),
        ("module app -> app.App.kept", "list[7] -> list[7]", "str", 7, None),
    ],
)
def test_the_container_with_most_entries_is_the_one(
    before: str, name: str, behind: str, length: int, most: int | None
) -> None:
    path = f"{before} -> {name} -> {behind}"
    found = container_of(path)
    assert found is not None
    assert (found.name, found.length, found.most, found.is_last) == (name, length, most, "->" not in behind)
    assert container_on(path) == name


def test_a_librarys_own_map_is_told_with_whose_it_is() -> None:
    """Of a session of SQLAlchemy's that kept everything "sqlalchemy._WeakInstanceDict._dict -> dict[2000]" was told: whose?"""
    session = "module shop -> global 'app' -> shop.App.session -> sqlalchemy.Session.identity_map"
    told = container_on(
        f"{session} -> sqlalchemy._WeakInstanceDict._dict -> dict[2000] -> sqlalchemy.InstanceState -> dict[3]"
    )
    assert told == (
        "shop.App.session -> sqlalchemy.Session.identity_map -> sqlalchemy._WeakInstanceDict._dict -> dict[2000]"
    )
    # One object of a library says itself what it is.
    assert (
        container_on("shop.App.session -> sqlalchemy.Session._new -> dict[20] -> x")
        == "sqlalchemy.Session._new -> dict[20]"
    )


def test_without_a_container_a_way_is_told_by_its_end() -> None:
    assert container_of("module app -> global 'last' -> app.Row") is None
    assert container_on("module app -> global 'last' -> app.Row") == "global 'last' -> app.Row"
    assert container_on("module app") == "module app"
