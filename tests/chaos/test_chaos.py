"""Every kind of client and of fault in one mix, on one relay: what `make chaos` does with thousands of other mixes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.clients import CLIENTS
from tests.chaos.events import EVENTS
from tests.chaos.faults import FAULTS, Script
from tests.chaos.relay import LIMITS, VARIANTS, Relay
from tests.chaos.run import MARKS, VARIANT_WORDS, table
from tests.chaos.seeds import ANSWER_FAULTS, Plan, plan_of, run_seed
from tests.chaos.surroundings import Surroundings
from tests.conftest import ROOT
from tests.documents import write

COUNT = 20


def test_nothing_is_lost_and_nothing_is_left() -> None:
    clients = [("fast", Script(fault, number, COUNT, True)) for number, fault in enumerate(FAULTS)]
    clients += [("fast", Script(fault, number, COUNT, False)) for number, fault in enumerate(ANSWER_FAULTS, 100)]
    clients += [(kind, Script("none", number, 200, True)) for number, kind in enumerate(CLIENTS, 200)]
    clients += [("never_reading", Script("none", 300, 2000, False)), ("slow", Script("none", 301, 500, False))]
    random.Random(0).shuffle(clients)

    async def run(relay: Relay) -> list[str]:
        await relay.settle()
        outcome = await run_seed(relay, 0, Plan(tuple(clients)))
        assert len(outcome.seen) == len(clients)
        return outcome.wrong

    with Surroundings.started() as surroundings:
        relay = Relay.start(surroundings)
        try:
            assert "\n".join(asyncio.run(run(relay))) == ""
        finally:
            code = relay.end()
    assert code == 0


def test_what_happens_to_the_machine_loses_nothing_either() -> None:
    """Twice: what no stream may feel, and what may cut streams that are open; on one relay, which is at rest after each."""
    mixes = (
        ("otlp_killed", "disk_full", "no_processes", "captured", "monitor_killed"),
        ("upstream_killed", "no_descriptors", "otlp_silent", "redis_killed"),
    )
    faults = ("none", "slow", "late", "crlf", "tiny_chunks", "cut", "reset")
    clients = tuple(("fast", Script(fault, number, COUNT, True)) for number, fault in enumerate(faults * 2))

    async def run(relay: Relay) -> list[str]:
        await relay.settle()
        wrong = []
        for seed, events in enumerate(mixes):
            outcome = await run_seed(relay, seed, Plan(clients, events))
            assert {name for name, _ in outcome.events} == set(events)
            wrong += outcome.wrong
        return wrong

    with Surroundings.started() as surroundings:
        relay = Relay.start(surroundings, "refused")
        try:
            assert "\n".join(asyncio.run(run(relay))) == ""
        finally:
            code = relay.end()
    assert code == 0


def test_a_seed_is_the_same_mix_each_time_and_every_kind_is_in_some() -> None:
    assert plan_of(17) == plan_of(17)
    plans = [plan_of(seed) for seed in range(300)]
    assert {kind for plan in plans for kind, _ in plan.clients} == set(CLIENTS)
    assert {script.fault for plan in plans for _, script in plan.clients} == set(FAULTS)
    assert {event for plan in plans for event in plan.events} == set(EVENTS)
    assert {plan.variant for plan in plans} == set(VARIANTS) == set(VARIANT_WORDS)


def test_the_table_tells_what_was_run_and_what_was_wrong(tmp_path) -> None:  # type: ignore[no-untyped-def]
    lines = [
        {
            "seed": 1,
            "events": [["disk_full", "done"]],
            "variant": "",
            "late": False,
            "wrong": [],
            "seen": [["fast", "none", "whole"], ["slow", "cut", "told"]],
        },
        {
            "seed": 2,
            "events": [["disk_full", "left out: why"], ["killed", "done"]],
            "variant": "workers",
            "late": True,
            "wrong": ["x"],
            "seen": [["fast", "none", "WRONG: x"]],
        },
    ]
    page = tmp_path / "page.md"
    page.write_text("\n".join(("before", *MARKS, "after")), encoding="utf-8")
    write(page, table(lines), MARKS)
    text = page.read_text(encoding="utf-8")
    assert "2 seeds with 3 clients of 2 kinds" in text
    assert "| none | 2 | 1 | 1 |" in text
    assert "| disk_full | 1 | 1 |" in text
    assert "| two workers | 1 |" in text
    assert text.startswith("before")
    assert text.endswith("after")


def test_nothing_is_left_of_a_relay_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file system stayed mounted."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(LIMITS, "MAX_REQUEST_BYTES", "many")
    with Surroundings.started() as surroundings:
        with pytest.raises(AssertionError, match=r"(?i)max_request_bytes"):
            Relay.start(surroundings)
        assert list(tmp_path.glob("chaos-[!a]*")) == []


def test_nothing_is_left_of_it_where_it_is_told_to_end_while_a_relay_starts(
    tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """A relay and a cgroup were: the thread that started them went on, and nobody knew of them."""
    mark = f"CHAOS_IS_TOLD_TO_END={tmp_path}"
    words = [sys.executable, "-m", "tests.chaos", "--seeds", "3", "--journal", str(tmp_path / "journal")]
    name, _, value = mark.partition("=")
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, name: value}, stdout=subprocess.DEVNULL) as run:
        eventually(lambda: any(b"relay\0serve" in command for command in marked(mark)), patience=60)
        run.terminate()
        assert run.wait(60) == 143
    assert not marked(mark)


def marked(mark: str) -> list[bytes]:
    """The command lines of all processes with this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes())
    return found
