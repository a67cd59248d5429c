"""Visits the museum's exhibits by `diagnostics run`, judges what was said of them, and writes docs/museum.md, results.json
and of that the table of docs/verdict.md.

python -m tests.museum                      all; goes on where it was if it was stopped
python -m tests.museum sse-starlette cache  some: an exhibit with both its sides, or one side (sse-starlette-leaky)
python -m tests.museum --others ...         only the same work under tracemalloc, objgraph and memray
python -m tests.museum --alone ...          only whether the leaks are there at all, without us
python -m tests.museum --install ...        only the environments
python -m tests.museum --table              only the table of docs/verdict.md, of results.json as it is
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..services.environments import NotInstalled, versions
from ..services.running import Failed, kill_all
from . import page, record
from .alone import grows
from .judged import RIGHT
from .named import Named
from .others import TOOLS, Shown
from .others import shown as shown_by
from .page import Result
from .table import APPS, HERE, LEAKY, Side, read
from .visit import visit

ROOT = HERE.parent.parent
RESULTS = ROOT / "report" / "museum"
PAGE, VERDICTS = ROOT / "docs" / "museum.md", ROOT / "docs" / "verdict.md"
LEAK_SECONDS, CALM_SECONDS, OTHERS_SECONDS = 240.0, 170.0, 105.0


def main() -> int:
    arguments = _arguments()
    sides = read()
    if arguments.table:
        _write_verdicts(sides, [])
        return 0
    chosen = [side for side in sides.values() if not arguments.names or {side.name, side.exhibit} & {*arguments.names}]
    unknown = {*arguments.names} - {name for side in chosen for name in (side.name, side.exhibit)}
    if unknown:
        print(f"no such exhibit: {', '.join(sorted(unknown))}; there are {', '.join(sides)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.together) as threads:
        if arguments.others:
            list(threads.map(_under_others, [side for side in chosen if side.side == LEAKY]))
            _write(sides)
            return 0
        results = list(threads.map(lambda side: _seen(side, arguments), chosen))
    if arguments.alone or arguments.install:
        return 0
    print(page.told(results, {one.side.exhibit: _others(one.side) for one in results}))
    _write(sides)
    return 0 if all(one.judged and one.judged.outcome == RIGHT for one in results) else 1


def _write(sides: Mapping[str, Side]) -> None:
    """The pages. That of the museum is of whole runs: a table of some sides would not say how often the verdict is right."""
    known = [kept for side in sides.values() if (kept := _kept(side))]
    _write_verdicts(sides, known)
    if len(known) < len(sides):
        print(
            f"{PAGE.relative_to(ROOT)} stays as it is: {len(known)} of {len(sides)} sides have a result on this machine"
        )
        return
    others = {side.exhibit: _others(side) for side in sides.values()}
    PAGE.write_text(page.marked(PAGE.read_text(encoding="utf-8"), known, others), encoding="utf-8")
    print(f"written into {PAGE.relative_to(ROOT)}")


def _write_verdicts(sides: Mapping[str, Side], known: list[Result]) -> None:
    """The table of docs/verdict.md, of what results.json has and what is known beside it, which it has from now on."""
    records = record.updated(
        record.read(), [(one, json.loads(_file(one.side).read_text("utf-8"))["code"]) for one in known]
    )
    record.write(records)
    VERDICTS.write_text(record.marked(VERDICTS.read_text(encoding="utf-8"), records, sides), encoding="utf-8")


def _interrupted(number: int, frame: object) -> None:
    """Threads wait for services here and there: the services are killed, and nobody is waited for."""
    kill_all()
    print("stopped; what was found so far is kept", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.museum", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="EXHIBIT", help="names in exhibits.toml; default: all")
    parser.add_argument("--again", action="store_true", help="also those whose result is of this very code")
    parser.add_argument("--table", action="store_true", help="only the table of docs/verdict.md, without a visit")
    parser.add_argument("--alone", action="store_true", help="only how memory grows without us")
    parser.add_argument("--install", action="store_true", help="only make the environments")
    parser.add_argument(
        "--others", action="store_true", help="only the same work under tracemalloc, objgraph and memray"
    )
    parser.add_argument("--seconds", type=float, default=LEAK_SECONDS, help="of work at a visit, at most (%(default)g)")
    parser.add_argument("--together", type=int, default=1, help="visits at a time (%(default)d)")
    return parser.parse_args()


def _seen(side: Side, arguments: argparse.Namespace) -> Result:
    kept = _kept(side)
    if kept and not kept.older and not arguments.again and not arguments.alone and not arguments.install:
        return kept
    installed: dict[str, str] = {}
    growth, error, found, python = "", "", None, ""
    before = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix=f"museum-{side.name}-"))
    try:
        place = side.place()
        installed, python = versions(place), place.name.split("-")[-2]
        if arguments.install:
            print(f"{side.name}: {place.name}", flush=True)
        elif arguments.alone or not (kept and kept.growth):
            growth = str(grows(side, place, folder, 30.0 if arguments.alone else 20.0))
            print(f"{side.name}: without us {growth}", flush=True)
        else:
            growth = kept.growth
        if not arguments.alone and not arguments.install:
            found = visit(side, place, folder, min(arguments.seconds, _seconds(side)))
    except (NotInstalled, Failed, OSError, http.client.HTTPException, LookupError, ValueError) as problem:
        error = f"{type(problem).__name__}: {str(problem)[-1000:]}"
        print(f"{side.name}: {error}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    names = [pin.partition("==")[0].partition("[")[0] for pin in side.pinned]
    result = Result(
        side, growth, found, error,
        {name: installed.get(name.lower().replace("_", "-"), "?") for name in names}, python,
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"), (before, os.getloadavg()[0]),
    )  # fmt: skip
    if not arguments.alone and not arguments.install:
        _file(side).write_text(json.dumps({"code": _code(side), **result.to_json()}, indent=1) + "\n", encoding="utf-8")
        print(f"{side.name}: {result.judged.outcome if result.judged else 'did not run'}: {result.judged}", flush=True)
    return result


def _under_others(side: Side) -> None:
    """Each tool that has not been at this exhibit yet."""
    done = _others(side)
    for tool in TOOLS:
        if any(shown.tool == tool for shown in done):
            continue
        folder = Path(tempfile.mkdtemp(prefix=f"museum-{side.name}-{tool}-"))
        try:
            done.append(shown_by(side, tool, side.place(), folder, OTHERS_SECONDS))
            _others_file(side).write_text(
                json.dumps([vars(shown) for shown in done], indent=1) + "\n", encoding="utf-8"
            )
            print(f"{side.name}: {done[-1]}", flush=True)
        except (NotInstalled, Failed, OSError, ValueError) as problem:
            print(f"{side.name}: {tool}: {type(problem).__name__}: {str(problem)[-1000:]}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _others(side: Side) -> list[Shown]:
    try:
        told = json.loads(_others_file(side).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    shown = [Shown(**{**one, "lines": tuple(one["lines"])}) for one in told]
    return [_judged_anew(one, side) for one in shown]


def _judged_anew(shown: Shown, side: Side) -> Shown:
    """By the entry as it is now. What named nothing then was looked at until the end."""
    rank = Named(shown.lines).rank(side.culprit)
    seconds = None if rank is None else shown.seconds or OTHERS_SECONDS
    return replace(shown, rank=rank, seconds=seconds)


def _others_file(side: Side) -> Path:
    return RESULTS / f"{side.exhibit}.others.json"


def _seconds(side: Side) -> float:
    """How long a visit is at most. Nobody is accused in a process's first two minutes; where there is no leak it goes on for
    half as long again."""
    return LEAK_SECONDS if side.side == LEAKY else CALM_SECONDS


def _file(side: Side) -> Path:
    return RESULTS / f"{side.name}.json"


def _kept(side: Side) -> Result | None:
    """What was found of it last, if anything was; `older` where it was with other code than this."""
    try:
        told = json.loads(_file(side).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Result.from_json(side, told, older=told["code"] != _code(side))


def _code(side: Side) -> str:
    """A hash of what a result is of: the product, and what the museum does with the exhibit."""
    # The entry's judgement (`accepted`, `culprit`) and its words may change without a new visit: what was read is kept.
    asked = (
        side.requirements,
        side.command,
        side.environment,
        side.python,
        side.ask,
        side.work,
        side.a_second,
        side.held_count,
        side.limit_mib,
    )
    digest = hashlib.sha256(repr(asked).encode())
    proofs = ROOT / "diagnostics" / "proof"  # nothing of them runs beside a service
    for path in sorted([*(ROOT / "diagnostics").rglob("*.py"), *_apps(" ".join(side.command))]):
        if proofs not in path.parents:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _apps(text: str) -> set[Path]:
    """The files of `apps` that a command names, and those that they import."""
    found: set[Path] = set()
    texts = [text]
    while texts:
        words = set(re.findall(r"\w+", texts.pop()))
        new = {path for path in APPS.glob("*.py") if path.stem in words} - found
        texts += [path.read_text(encoding="utf-8") for path in new]
        found |= new
    return found


if __name__ == "__main__":
    sys.exit(main())
