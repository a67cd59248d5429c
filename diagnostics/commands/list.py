"""`diagnostics list REGEX FILE...`: the source lines of the matching functions, each with its values.

Source is read at the path in the profile, or below --source DIR where the capture is from another machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePath

from ..analysis.formats.text import render_listing
from ..analysis.views import listing
from ._profiles import add_files, add_output, add_reading, add_selection, load_all, selected, write

__all__ = ["configure", "run"]

# A profile is untrusted, and names files: only source files are shown, not /etc/shadow or a device.
SOURCE_SUFFIXES = frozenset({".py", ".pyi", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".h", ".hpp", ".rs"})
MAX_SOURCE_BYTES = 8 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="REGEX", help="which functions, for example '^fill$'")
    add_files(parser)
    parser.add_argument("-n", metavar="N", type=int, default=10, help="how many functions; default: 10")
    parser.add_argument("--source", metavar="DIR", type=Path, help="a folder with the source, tried first")
    add_reading(parser)
    add_selection(parser)
    add_output(parser, "standard output")


def run(arguments: argparse.Namespace) -> int:
    profile, value = selected(load_all(arguments.files, arguments), arguments)

    def source(file: str) -> Sequence[str] | None:
        return read_source(file, arguments.source)

    functions = listing(profile, arguments.pattern, source, value)[: max(0, arguments.n)]
    write(render_listing(profile, functions, value), arguments.output)
    return 0


def read_source(file: str, folder: Path | None) -> Sequence[str] | None:
    """The lines of the source file that a profile names; None where it cannot be read."""
    if PurePath(file).suffix not in SOURCE_SUFFIXES or "\0" in file:
        return None
    for path in _candidates(file, folder):
        try:
            if path.is_file() and path.stat().st_size <= MAX_SOURCE_BYTES:
                return path.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue  # no permission, or too long a name: as if it did not exist
    return None


def _candidates(file: str, folder: Path | None) -> list[Path]:
    """/srv/app/stream.py below DIR: DIR/srv/app/stream.py, DIR/app/stream.py, ... and last the file itself."""
    parts = [part for part in PurePath(file).parts if part not in ("/", "..")]
    below = [folder.joinpath(*parts[start:]) for start in range(len(parts))] if folder is not None else []
    return [*below, Path(file)]
