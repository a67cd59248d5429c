"""Runs unmodified public services by `diagnostics run` and by themselves, and writes what differs into docs/field.md.

python -m tests.field                   all of them; goes on where it was if it was stopped
python -m tests.field litellm sanic     some
python -m tests.field --again ...       also those whose result is of this very code
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ..services.environments import NotInstalled, environment, versions
from ..services.running import kill_all
from .page import Result, marked, table
from .promises import BROKEN, KEPT, Report
from .rounds import examine
from .table import APPS, HERE, Service, read

ROOT = HERE.parent.parent
RESULTS = ROOT / "report" / "field"
PAGE = ROOT / "docs" / "field.md"


def main() -> int:
    arguments = _arguments()
    services = read()
    unknown = [name for name in arguments.names if name not in services]
    if unknown:
        print(f"no such service: {', '.join(unknown)}; there are {', '.join(services)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    results = []
    for name in arguments.names or services:
        kept = _kept(services[name])
        if kept and not kept.older and not arguments.again:
            print(f"{name}: {kept.report.state}, as it was found at {kept.date} with this very code", flush=True)
            results.append(kept)
        else:
            results.append(_examined(services[name], arguments))
    print(table(results))
    known = {name: kept for name, service in services.items() if (kept := _kept(service))}
    if missing := [name for name in services if name not in known]:
        print(f"docs/field.md is as it was: there is no result of {', '.join(missing)} yet")
    else:
        PAGE.write_text(marked(PAGE.read_text(encoding="utf-8"), list(known.values())), encoding="utf-8")
        print(f"written into {PAGE.relative_to(ROOT)}")
    return 0 if all(result.report.state == KEPT for result in results) else 1


def _interrupted(number: int, frame: object) -> None:
    """Threads wait for services here and there: the services are killed, and nobody is waited for."""
    kill_all()
    print("stopped; what was found so far is kept", file=sys.stderr, flush=True)
    os._exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.field", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="SERVICE", help="names in services.toml; default: all")
    parser.add_argument("--again", action="store_true", help="also those whose result is of this very code")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="for each service, once it is installed (%(default)g)"
    )
    parser.add_argument("--python", default=sys.executable, help="the services' interpreter (default: this one)")
    return parser.parse_args()


def _examined(service: Service, arguments: argparse.Namespace) -> Result:
    code = _code(service)
    print(f"{service.name}: installing, unless it is there", flush=True)
    base = getattr(sys, "_base_executable", sys.executable) if arguments.python == sys.executable else arguments.python
    before, began = os.getloadavg()[0], time.monotonic()
    installed: dict[str, str] = {}
    python = ""
    try:
        place = environment(service.name, service.requirements, base)
    except NotInstalled as error:
        report = Report()
        report.unknown("installs", str(error))
    else:
        installed = versions(place)
        python = place.name.split("-")[-2]
        print(f"{service.name}: running", flush=True)
        before, began = os.getloadavg()[0], time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix=f"field-{service.name}-"))
        try:
            report = examine(service, place, folder, arguments.seconds)
        finally:
            if "FIELD_KEEP" not in os.environ:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"{service.name}: its output is in {folder}")
    result = Result(
        service, report, {name: installed.get(name.lower(), "?") for name in service.shown}, python,
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"), (before, os.getloadavg()[0]), time.monotonic() - began,
    )  # fmt: skip
    _file(service).write_text(json.dumps({"code": code, **result.to_json()}, indent=1) + "\n", encoding="utf-8")
    print(f"{service.name}: {report.state} after {result.seconds:.0f} s", flush=True)
    for name in report.named(BROKEN):
        print(f"    {name}: {report.checks[name][1]}", flush=True)
    return result


def _file(service: Service) -> Path:
    return RESULTS / f"{service.name}.json"


def _kept(service: Service) -> Result | None:
    """What was found of the service last, if anything was; `older` where it was with other code than this."""
    try:
        told: dict[str, Any] = json.loads(_file(service).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Result.from_json(service, told, older=told["code"] != _code(service))


def _code(service: Service) -> str:
    """A hash of what the results are of: the product, and what the suite does with the service."""
    digest = hashlib.sha256(repr(service).encode())
    proofs = ROOT / "diagnostics" / "proof"  # nothing of them runs beside a service
    for path in sorted([*(ROOT / "diagnostics").rglob("*.py"), *APPS.iterdir()]):
        if path.is_file() and proofs not in path.parents:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
