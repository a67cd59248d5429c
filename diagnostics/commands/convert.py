"""`diagnostics convert IN OUT`: the format of IN is recognised by its content, that of OUT by its ending."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..analysis.formats import collapsed, flamegraph, native, pprof
from ..analysis.profile import Profile
from ..errors import UsageError
from ._profiles import FORMATS, add_reading, add_selection, load, selected, type_first, write
from ._stored import source

__all__ = ["WRITERS", "configure", "run"]

# by the ending of OUT
WRITERS: dict[str, Callable[[Profile], bytes]] = {
    ".pb.gz": pprof.encode,
    ".pprof": pprof.encode,
    ".json": native.encode,
    ".folded": collapsed.encode,
    ".html": flamegraph.render,
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN", type=source, help=FORMATS)
    parser.add_argument("output", metavar="OUT", type=Path, help=f"ends in {', '.join(WRITERS)}")
    add_reading(parser)
    add_selection(parser)


def run(arguments: argparse.Namespace) -> int:
    writer = next((made for ending, made in WRITERS.items() if arguments.output.name.endswith(ending)), None)
    if writer is None:
        raise UsageError(
            f"no format is known for {arguments.output.name!r}", remedy=f"end its name in one of: {', '.join(WRITERS)}"
        )
    profile, value = selected(load(arguments.input, arguments.of), arguments)
    write(writer(type_first(profile, value)), arguments.output)
    return 0
