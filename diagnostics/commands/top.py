"""`diagnostics top FILE...`: the functions, or lines, with the largest values. Several files are added up."""

from __future__ import annotations

import argparse

from ..analysis.formats.text import render_top
from ..analysis.views import top
from ._profiles import add_files, add_output, add_reading, add_selection, load_all, selected, write

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument("-n", metavar="N", type=int, default=20, help="how many rows; default: 20")
    parser.add_argument("--lines", action="store_true", help="by line instead of by function")
    parser.add_argument("--cum", action="store_true", help="sorted by cumulative instead of flat")
    add_reading(parser)
    add_selection(parser)
    add_output(parser, "standard output")


def run(arguments: argparse.Namespace) -> int:
    profile, value = selected(load_all(arguments.files, arguments), arguments)
    largest = top(profile, value, by="line" if arguments.lines else "function", cumulative=arguments.cum)
    write(render_top(profile, largest, max(0, arguments.n), value), arguments.output)
    return 0
