"""Runs unmodified public services by `diagnostics run` and by themselves, and writes what differs into docs/field.md.

python -m tests.field                   all of them; goes on where it was if it was stopped
python -m tests.field litellm sanic     some
python -m tests.field --again ...       also those whose results are of this very code
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .environments import NotInstalled, environment, versions
from .page import Result, marked, table
from .promises import BROKEN, KEPT, Report
from .rounds import examine
from .table import HERE, Service, read

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
    code = _code()
    RESULTS.mkdir(parents=True, exist_ok=True)
    asked = [services[name] for name in arguments.names or services]
    results = []
    for service in asked:
        kept = _kept(service, code)
        if kept and not arguments.again:
            print(
                f"{service.name}: {kept.report.state}, as it was found at {kept.date} with this very code", flush=True
            )
            results.append(kept)
            continue
        results.append(_examined(service, code, arguments))
    print(table(results))
    known = [kept for service in services.values() if (kept := _kept(service, code))]
    if len(known) == len(services):
        PAGE.write_text(marked(PAGE.read_text(), known))
        print(f"written into {PAGE.relative_to(ROOT)}")
    else:
        print("docs/field.md is as it was: it is written when all services have results of this very code")
    return 0 if all(result.report.state == KEPT for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.field", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="SERVICE", help="names in services.toml; default: all")
    parser.add_argument("--again", action="store_true", help="also those whose results are of this very code")
    parser.add_argument(
        "--seconds", type=float, default=240.0, help="for each service, once it is installed (%(default)g)"
    )
    parser.add_argument("--python", default=sys.executable, help="the services' interpreter (default: this one)")
    return parser.parse_args()


def _examined(service: Service, code: str, arguments: argparse.Namespace) -> Result:
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
    _file(service).write_text(json.dumps({"code": code, **result.to_json()}, indent=1) + "\n")
    print(f"{service.name}: {report.state} after {result.seconds:.0f} s", flush=True)
    for name in report.named(BROKEN):
        print(f"    {name}: {report.checks[name][1]}", flush=True)
    return result


def _file(service: Service) -> Path:
    return RESULTS / f"{service.name}.json"


def _kept(service: Service, code: str) -> Result | None:
    """The result that was found with this very code, if there is one."""
    try:
        told: dict[str, Any] = json.loads(_file(service).read_text())
    except FileNotFoundError:
        return None
    return Result.from_json(service, told) if told["code"] == code else None


def _code(folders: Sequence[str] = ("diagnostics", "tests/field")) -> str:
    """A hash of all that decides on the results: the product and the suite."""
    files = sorted(
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".toml", ".yaml")
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
