"""The difference of two kept profiles, made in a process of its own.

    python -m diagnostics.monitor.captures.difference AFTER BEFORE --format json|html|text|pprof > OUT

Profiles of a hundred thousand stacks take seconds to subtract; the monitor must answer other requests meanwhile. Exit code 2:
the error, in one line, on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ...analysis.algebra import difference
from ...analysis.formats import decode, flamegraph, native, pprof
from ...analysis.formats.text import render_top
from ...analysis.profile import Profile
from ...analysis.views import top
from ...errors import DiagnosticsError

__all__ = ["FORMATS", "main"]

_ROWS = 50


def _html(after: Profile, before: Profile) -> bytes:
    return flamegraph.render(after, before=before, title=f"{after.kind}: what was added")


def _text(after: Profile, before: Profile) -> bytes:
    changed = difference(after, before)
    table = render_top(changed, top(changed, 0, by="line", cumulative=False), _ROWS, 0)
    return table.encode("utf-8", "backslashreplace")


# name -> (content type, writer)
FORMATS: dict[str, tuple[str, Callable[[Profile, Profile], bytes]]] = {
    "json": ("application/json", lambda after, before: native.encode(difference(after, before))),
    "html": ("text/html; charset=utf-8", _html),
    "text": ("text/plain; charset=utf-8", _text),
    "pprof": ("application/octet-stream", lambda after, before: pprof.encode(difference(after, before))),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diagnostics.monitor.captures.difference", description="AFTER minus BEFORE."
    )
    parser.add_argument("after", type=Path)
    parser.add_argument("before", type=Path)
    parser.add_argument("--format", choices=sorted(FORMATS), default="json", help="default: json")
    arguments = parser.parse_args(argv)
    _content_type, write = FORMATS[arguments.format]
    try:
        data = write(decode(arguments.after.read_bytes()), decode(arguments.before.read_bytes()))
    except DiagnosticsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
