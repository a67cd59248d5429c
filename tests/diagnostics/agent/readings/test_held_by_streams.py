"""What nothing but an open stream keeps alive is told from what the program keeps, though the stream leads there as well."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from diagnostics.agent.ledger import StreamLedger
from diagnostics.agent.readings import objects
from diagnostics.agent.readings.sampling import PARTS


class Chunk:
    """What a stream has sent, and keeps."""


class Audited:
    """What a background task keeps of each request."""


class Logged:
    """What the service keeps, which only `main` and the streams refer to."""


class Kept:
    """What a module keeps."""


KINDS = (Chunk, Audited, Logged, Kept)
kept: list[Kept] = []


class Service:
    """Lives as long as the program, without a module that refers to it: `main` has made it."""

    def __init__(self) -> None:
        self.logged: list[Logged] = []


@pytest.fixture(autouse=True)
def everything_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(objects, "parts_for", lambda _tracked, _blocks: PARTS)
    gc.collect()
    yield
    kept.clear()


async def body(service: Service, audited: list[Audited]) -> Any:
    served_chunks = []
    for _ in range(20):
        served_chunks.append(Chunk())
        service.logged.append(Logged())
        audited.append(Audited())
        kept.append(Kept())
    yield b"data: \n\n"
    await asyncio.sleep(60)
    del served_chunks


async def serves(ledger: StreamLedger, service: Service, audited: list[Audited]) -> None:
    with ledger.stream("/chat"):
        async for _ in body(service, audited):
            pass


async def audits(audited: list[Audited]) -> None:
    await asyncio.sleep(60)
    del audited


@pytest.mark.parametrize("many", [1, 5])
def test_what_streams_alone_lead_to_is_theirs_and_what_anything_else_leads_to_is_not(many: int) -> None:
    """A proxy kept each chunk in a local list until the stream ended, and it was told as objects that are retained."""

    async def main() -> dict[str, Any]:
        ledger, service, audited = StreamLedger(), Service(), list[Audited]()
        tasks = [asyncio.create_task(audits(audited), name="auditor")]
        tasks += [asyncio.create_task(serves(ledger, service, audited), name=f"request {n}") for n in range(many)]
        del audited
        for _ in range(5):
            await asyncio.sleep(0)
        names = [f"{kind.__module__}.{kind.__qualname__}" for kind in KINDS]
        told = objects.explain(names, 12, ledgers=[ledger])["paths"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {kind.__qualname__: told[name] for kind, name in zip(KINDS, names, strict=True)}

    paths = asyncio.run(main())
    (chunks,) = paths["Chunk"]
    assert chunks["root"] == "stream"
    assert " -> local 'served_chunks' -> list[20] -> " in chunks["path"]
    assert "body (test_held_by_streams.py:" in chunks["path"]
    assert len(chunks["streams"]) >= min(many, 3)  # samples are of the later half
    assert {way["root"] for way in paths["Audited"]} == {"task"}
    assert all(way["path"].startswith("Task 'auditor'") for way in paths["Audited"])
    assert not {way["root"] for way in paths["Logged"]} & {"stream"}
    assert {way["root"] for way in paths["Kept"]} == {"module"}
    assert all("streams" not in way for kind in ("Audited", "Logged", "Kept") for way in paths[kind])
