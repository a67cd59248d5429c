"""`diagnostics flamegraph FILE...`: one HTML file that works offline; with --before a differential flame graph."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..analysis.formats.flamegraph import render
from ..errors import UsageError
from ._profiles import add_files, add_output, add_reading, add_selection, load_all, load_type, selected, write
from ._stored import source

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument(
        "--before", metavar="FILE", type=source, help="an earlier capture: colours then show the change"
    )
    parser.add_argument("--title", metavar="TEXT", default="", help="default: the kind and sample type")
    add_reading(parser)
    add_selection(parser)
    add_output(parser, "FILE's name with .html, in the current folder")


def run(arguments: argparse.Namespace) -> int:
    profile, value = selected(load_all(arguments.files, arguments), arguments)
    before = None
    if arguments.before is not None:
        before, _ = selected(load_type(arguments.before, arguments), arguments)
    page = render(profile, before=before, value=value, title=arguments.title)
    output = arguments.output
    if output is None:
        output = Path(arguments.files[0].name.partition(".")[0] + ".html")
        if output.exists():
            raise UsageError(f"{output} is already there", remedy="name the file to write with -o")
    write(page, output)
    print(output)
    return 0
