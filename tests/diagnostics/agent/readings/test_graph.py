"""Walks over the graph of objects: what they must not touch, and what they say where their time is over."""

from __future__ import annotations

import abc
import gc
import math
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.readings import classes, graph, objects, retained
from diagnostics.errors import TargetError

ROOT = Path(__file__).parents[4]

# Futures have come and gone, so that `_asyncio` keeps freed iterators, and a connection is open.
STREAMING = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[1])
from diagnostics.agent.readings import objects, retained

async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: writer.write(b"hello"), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read(5)
    for _ in range(100):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    for _ in range(2):
        assert objects.census()["partial"] is None
        objects.explain(["dict", "list"], 12)
        retained.read([])
    writer.close()
    server.close()
    print("walked")

asyncio.run(main())
"""


def interpreter(version: str) -> str:
    """A Python of this version that starts; skips where there is none."""
    found = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for path in filter(None, found):
        told = subprocess.run(
            [str(path), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], check=False, capture_output=True
        )
        if told.stdout.decode().strip() == version:
            return str(path)
    pytest.skip(f"no Python {version} on PATH or in ~/.pyenv/versions")


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_service_with_an_open_stream_is_walked_on_every_version(version: str) -> None:
    command = [interpreter(version), "-c", STREAMING, str(ROOT)]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", timeout=120)
    assert (done.returncode, done.stdout) == (0, "walked\n"), done.stderr[-2000:]


def test_no_module_is_shown_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, shown = gc.get_referents, []

    def watched(*things: Any) -> list[Any]:
        shown.extend(thing for thing in things if issubclass(type(thing), ModuleType))
        return asked(*things)

    monkeypatch.setattr(gc, "get_referents", watched)
    objects.census()
    objects.explain(["dict"], 3)
    retained.read([])
    graph.reached(graph.roots(), set())
    assert shown == []


def test_a_module_is_its_namespace_whatever_its_class_says() -> None:
    class Odd(ModuleType):
        @property
        def __dict__(self) -> Any:
            raise RuntimeError("asked for its namespace")

    module = Odd("odd")
    inside = object()
    ModuleType.__setattr__(module, "inside", inside)
    assert {id(inside), id("odd")} <= graph.reached([module], set())
    parents = graph.search([module], [inside])
    graph.settle([inside], parents)
    (namespace,) = graph.parent_of(inside, parents)
    assert namespace["inside"] is inside


def test_a_census_that_has_no_time_left_tells_what_it_left_out_and_no_way_is_made_up() -> None:
    whole = objects.census()
    assert whole["partial"] is None
    late = objects.census(until=-math.inf)
    assert "all but 0 of the" in late["partial"]
    assert late["not_covered"][0] == late["partial"]
    assert late["objects"] == 0
    (way,) = objects.explain(["dict"], 3, until=-math.inf)["paths"]["dict"]
    assert way["path"].startswith("(not known: the search was ended at its deadline")
    with pytest.raises(graph.LateError, match="1 objects were visited"):
        graph.search([object()], [object()], until=-math.inf)


def test_what_streams_retain_is_not_known_where_the_program_was_not_walked_through() -> None:
    with pytest.raises(TargetError, match="is not known: the reading was ended") as told:
        retained.read([StreamLedger()], until=-math.inf)
    assert told.value.code == "reading_late"
    assert told.value.remedy


def test_classes_are_listed_without_asking_their_metaclasses() -> None:
    class Asked(type):
        def __eq__(cls, other: object) -> bool:
            raise AssertionError("the service's own code was run")

        def __hash__(cls) -> int:
            raise AssertionError("the service's own code was run")

    class Base:
        pass

    class Plain(Base, metaclass=abc.ABCMeta):
        pass

    class Odd(Base, metaclass=Asked):
        pass

    class BelowOdd(Odd):
        pass

    assert {kind.__name__ for kind in classes.kinds_below(Base)} == {"Base", "Plain"}
    assert objects.census()["types"]
