"""What the monitor shows of a service: its workers, streams, connections, verdicts and captures."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..services.exchange import ask, monitor
from ..services.running import Running
from .promises import Report

# An alarm that is measured and names no leak: memory that the allocator keeps.
_NO_LEAK = "allocator_free"
KINDS = ("tasks", "objects", "retained", "tracemalloc", "memray")
_LOOK_SECONDS = 15.0
_WINDOW_SECONDS = 2.0
_ENDED = ("done", "failed", "cancelled")


def workers(running: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = monitor(running, "/debug/memory").json()["workers"]
    return found


def judge_workers(running: Running, report: Report) -> None:
    """As many processes with an agent that answers as are promised, and no other."""
    wanted = running.service.expect.workers
    _, last = _within(lambda: workers(running), lambda found: _answering(found) == len(found) == wanted)
    states = Counter(
        f"{worker['state']}{' (' + worker['reason'] + ')' if worker.get('reason') else ''}" for worker in last
    )
    says = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
    report.judge("workers", _answering(last) == len(last) == wanted, f"{says}; promised: {wanted} answering")
    report.figures["workers"] = f"{_answering(last)} of {len(last)}"


def judge_streams(running: Running, report: Report, opened: int) -> None:
    """What is promised of `opened` streams that are open now."""
    expect = running.service.expect
    fine, found = _within(lambda: workers(running), lambda found: _open(found) == opened)
    sources = sorted({str(worker["connections"]["source"]) for worker in found})
    says = f"{_open(found)} of {opened} seen, from {' and '.join(sources)}; promised: from {expect.source}"
    report.judge("connections", fine and sources == [expect.source], says)

    def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for worker in found for row in worker["streams"]]

    def as_promised(found: list[dict[str, Any]]) -> bool:
        return not promised or _shown(rows(found)) == {(expect.source, expect.route, expect.bytes): opened}

    promised = bool(expect.route)
    right, found = _within(lambda: workers(running), as_promised)
    shown = _shown(rows(found))
    told = ", ".join(f"{count} {_named(*row)}" for row, count in shown.items()) or "none"
    word = f"{opened} {_named(expect.source, expect.route, expect.bytes)}" if promised else "none one by one"
    better = "; more than is promised: raise `expect` in services.toml" if not promised and shown else ""
    report.judge("streams", right, f"{told}; promised: {word}{better}")
    report.figures["seen"] = f"{sum(shown.values())} streams" if shown else f"{_open(found)} connections"
    report.figures["route"] = ", ".join(sorted({route for _, route, _ in shown}))


def judge_streams_gone(running: Running, report: Report) -> None:
    fine, found = _within(lambda: workers(running), lambda found: not any(worker["streams"] for worker in found))
    left = sum(len(worker["streams"]) for worker in found)
    report.judge(
        "streams end", fine, f"{left} still shown {_LOOK_SECONDS:.0f} s after their clients left" if left else "all"
    )


def judge_verdict(running: Running, name: str, report: Report) -> None:
    """Nobody is accused with high confidence: what runs here has no leak that is known."""
    told = monitor(running, "/debug/memory").json()
    verdicts = [worker["verdict"] for worker in told["workers"]]
    whole = [told["service"]["verdict"]] if "service" in told else []  # of all its processes together
    accused = [one for one in (*verdicts, *whole) if one["alarm"] and one["confidence"] == "high"]
    accused = [one for one in accused if one["verdict"] != _NO_LEAK]
    unsaid = [one for one in (*verdicts, *whole) if not one["says"]]
    says = "; ".join(
        dict.fromkeys(f"{one['verdict']} ({one['confidence']}): {one['says']}" for one in (*verdicts, *whole))
    )
    report.judge(name, bool(verdicts) and not accused and not unsaid, says or "no worker, no verdict")
    words = Counter(f"{one['verdict']} ({one['confidence']})" for one in verdicts)
    report.figures[name] = (
        ", ".join(f"{count} × {word}" if count > 1 else word for word, count in words.items()) or "none"
    )


def judge_captures(running: Running, report: Report, seconds_left: Callable[[], float]) -> None:
    """Every kind ends, or is refused before it costs anything, with a reason and a remedy."""
    for kind in (*KINDS, "heap", "bundle"):
        name = f"capture {kind}"
        if seconds_left() <= 0:
            report.unknown(name, "the time for this service was over")
            continue
        began = time.monotonic()
        try:
            kept, says = _CAPTURES.get(kind, _taken)(running, kind, seconds_left())
        except (OSError, subprocess.TimeoutExpired) as error:
            if seconds_left() <= 0:
                report.unknown(name, f"not ended after {time.monotonic() - began:.0f} s, when the time was over")
                continue
            kept, says = False, f"the monitor did not answer: {type(error).__name__}: {error}"
        took = time.monotonic() - began
        report.judge(name, kept, f"{says} ({took:.1f} s)")
        word = says.partition(":")[0].removeprefix("done").removeprefix(", ")
        report.figures[name] = f"{word} {took:.0f} s".strip()
    ask(running, running.service.ask)


def _taken(running: Running, kind: str, patience: float) -> tuple[bool, str]:
    until = time.monotonic() + patience
    seconds = 0.0 if kind in ("tasks", "retained") else _WINDOW_SECONDS
    answer = monitor(running, "/debug/memory/captures", {"kind": kind, "seconds": seconds}, timeout=patience)
    if answer.status != 202:
        return _refused(answer.status, answer.json()["error"])
    location = answer.headers["Location"]
    while (capture := monitor(running, location).json())["state"] not in _ENDED:
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.1)
    if capture["state"] != "done":
        error = capture.get("error") or {}
        return False, f"{capture['state']}: {error.get('message')}; {error.get('remedy')}"
    result = capture["result"]
    unseen = f"; not covered: {', '.join(result['not_covered'])}" if result.get("not_covered") else ""
    if kind == "retained":
        return _retained(running, capture, unseen)
    return True, f"done: {len(result['top'])} rows{unseen}"


def _retained(running: Running, capture: dict[str, Any], unseen: str) -> tuple[bool, str]:
    """All streams that are open in the worker that was captured, or a word that they are not known: never fewer than there
    are. The load beside them opens and ends one meanwhile."""
    result = capture["result"]
    if result.get("unknown"):
        return True, f"done, unknown: {result['unknown']}{unseen}"
    (worker,) = [one for one in workers(running) if one["worker"] == capture["worker"]]
    counted = worker["connections"]["source"] == "sockets"
    there_are = (worker["connections"]["open"] or 0) if counted else len(worker["streams"])
    return result["open"] >= there_are - 1, f"done: {result['open']} streams, {there_are} are open{unseen}"


def _refused(status: int, error: dict[str, Any]) -> tuple[bool, str]:
    """Whose agent cannot be asked is refused, too; but a reason without a remedy helps nobody."""
    return bool(error["message"] and error["remedy"]), f"refused: {status} {error['message']}; {error['remedy']}"


def _heap(running: Running, kind: str, patience: float) -> tuple[bool, str]:
    answer = monitor(running, f"/debug/pprof/{kind}?seconds={_WINDOW_SECONDS:g}", timeout=patience)
    if answer.status == 200:
        return bool(answer.body), f"done: {len(answer.body)} bytes of pprof"
    # Go's tool shows the body as it is: it is plain text, the message and the remedy in one line.
    message, _, remedy = answer.body.decode().strip().partition("; ")
    return _refused(answer.status, {"message": message, "remedy": remedy})


def _bundle(running: Running, kind: str, patience: float) -> tuple[bool, str]:
    folder: Path = running.folder / kind
    done = subprocess.run(
        [sys.executable, "-m", "diagnostics", "capture", running.monitor, "--kind", kind, "--seconds", f"{_WINDOW_SECONDS:g}",
         "-o", str(folder)],
        capture_output=True, encoding="utf-8", timeout=patience, check=False,
    )  # fmt: skip
    last = (done.stderr.strip().splitlines() or [""])[-1]
    whole = len(list(folder.glob("*.tar.gz"))) == 1 and "Traceback" not in done.stderr
    if done.returncode == 0:
        return whole, "done: all of its kinds"
    return done.returncode == 1 and whole and "report says why" in done.stderr, f"exit code {done.returncode}: {last}"


_CAPTURES: dict[str, Callable[[Running, str, float], tuple[bool, str]]] = {"heap": _heap, "bundle": _bundle}


def _answering(found: list[dict[str, Any]]) -> int:
    return sum(worker["state"] == "answering" for worker in found)


def _open(found: list[dict[str, Any]]) -> int:
    return sum(worker["connections"]["open"] or 0 for worker in found)


def _shown(rows: list[dict[str, Any]]) -> Counter[tuple[str, str, bool]]:
    """How many streams are shown with which source, which route, and the kernel's bytes or without. Each must have an age."""
    return Counter(
        (str(row["source"]), str(row["route"]), row["kernel_bytes"] is not None)
        for row in rows
        if row["age_seconds"] >= 0
    )


def _named(source: str, route: str, has_bytes: bool) -> str:
    return f"by {source} as {route}{'' if has_bytes else ', their bytes unknown'}"


def _within(look: Callable[[], Any], fine: Callable[[Any], bool]) -> tuple[bool, Any]:
    """Looks until it is fine, for some seconds; the last look is told."""
    deadline = time.monotonic() + _LOOK_SECONDS
    while not fine(seen := look()):
        if time.monotonic() > deadline:
            return False, seen
        time.sleep(0.2)
    return True, seen
