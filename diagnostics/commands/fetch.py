"""`diagnostics fetch URL`: artifacts back from an object store: one, those of a capture, or of all captures below a prefix.

A capture gets a folder of its own, named by its id, in which every command that takes artifacts finds them. Credentials are the
store's standard environment variables, as for the monitor that has sent them.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from ..analysis.units import format_value
from ..errors import UsageError
from ..monitor.egress.destination import ARTIFACT, ID, Destination
from ._stored import captures_below, fetch

__all__ = ["configure", "run"]

if importlib.util.find_spec("obstore") is None:  # imported by the adapter only, and said before anything is asked for
    raise ModuleNotFoundError("No module named 'obstore'", name="obstore")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        metavar="URL",
        help="s3://bucket/prefix, gs://..., az://container/..., file:///folder, or below one of them",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to put what is fetched")
    parser.add_argument("--list", action="store_true", help="only say which captures are there, newest first")
    parser.add_argument(
        "-n", metavar="N", type=int, default=20, help="of the captures below a prefix, how many; default: the 20 newest"
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.n < 1:
        raise UsageError(f"-n is {arguments.n}", remedy="give a number from 1 on")
    place = Destination.parse(arguments.url, "URL")
    if not arguments.list and ID.fullmatch(place.parent.name) and ARTIFACT.fullmatch(place.name):
        _tell(fetch(place.parent, arguments.output, place.name))
    elif not arguments.list and ID.fullmatch(place.name):
        _tell(fetch(place, arguments.output / place.name))
    else:
        _all(place, arguments)
    return 0


def _all(place: Destination, arguments: argparse.Namespace) -> None:
    found = captures_below(place)
    for each in found[: arguments.n]:
        if arguments.list:
            print(f"{each.place.url}  {each.files} files, {format_value(each.bytes, 'bytes')}")
        else:
            _tell(fetch(each.place, arguments.output / each.place.name))
    if len(found) > arguments.n:
        more = len(found) - arguments.n
        print(f"diagnostics: {more} older captures are there; -n {len(found)} takes them, too", file=sys.stderr)


def _tell(paths: list[Path]) -> None:
    for path in paths:
        print(path)
