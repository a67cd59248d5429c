"""The shared parts of top, list, diff, flamegraph and convert: their options, and reading FILE as a Profile.

FILE may be the folder of a capture, or the address of an artifact in an object store, too (`_stored.py`).

A memray capture is read by another process (`monitor.captures.memray_file`), so these commands need nothing but the standard
library for all other formats.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ..analysis.algebra import merge, only, select, value_index
from ..analysis.formats import decode, native, recognise
from ..analysis.profile import Profile
from ..errors import UsageError
from ._stored import Source, at_hand, source

__all__ = [
    "FORMATS",
    "add_files",
    "add_output",
    "add_reading",
    "add_selection",
    "load",
    "load_all",
    "load_type",
    "selected",
    "type_first",
    "write",
]

# What can be read, for the help of a command.
FORMATS = "Profile JSON, pprof, folded, memray, or a capture's folder"
# A capture of a busy service in memray's full format takes half a minute to read.
_MEMRAY_SECONDS = 600
# The largest artifact that is read into memory; a capture of a busy service in memray's full format is about 40 MB.
MAX_FILE_BYTES = 1024 * 1024 * 1024
# What is read of a capture's folder, by the view of it: the second has what the profile leaves out, and only memray writes it.
_OF_A_FOLDER = {"leaked": "profile.json", "high-water": "capture.bin"}


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the positional arguments FILE, one or several."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=source, help=FORMATS)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading: a memray capture's view, and the sample type."""
    parser.add_argument("--type", metavar="NAME", help="sample type, such as inuse_space; default: the first")
    parser.add_argument(
        "--of",
        choices=["leaked", "high-water"],
        default="leaked",
        help="of a memray capture: what was left at its end (default), or what was there at its peak",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that select stacks."""
    parser.add_argument("--focus", metavar="REGEX", help="only stacks with a function or file that matches")
    parser.add_argument("--ignore", metavar="REGEX", help="no stacks with a function or file that matches")
    parser.add_argument(
        "--label", metavar="KEY=VALUE", action="append", default=[], help="only samples with this label; repeatable"
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help=f"where to write; default: {default}")


def load(source: Source, of: str) -> Profile:
    """The Profile in a file, in any format. `of`: the view of a memray capture. Raises UsageError, and a store's errors."""
    with at_hand(source) as path:
        return _loaded(path, of)


def _loaded(path: Path, of: str) -> Profile:
    try:
        if path.is_dir():
            folder, path = path, path / _OF_A_FOLDER[of]
            if not path.is_file():
                kind = "a capture" if of == "leaked" else "a memray capture"
                raise UsageError(
                    f"{folder} is not the folder of {kind}: it has no {path.name}", remedy="name a file in it"
                )
        # No pipe or device: their size cannot be checked before reading.
        if not path.is_file():
            raise UsageError(f"no such file: {path}" if not path.exists() else f"not a file: {path}")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise UsageError(f"{path} has {size} bytes, the limit is {MAX_FILE_BYTES}", remedy="take a shorter capture")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path and its rights") from error
    if recognise(data) == "memray":
        return native.decode(_read_memray(path, of))
    try:
        return decode(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy) from error


def load_type(path: Source, arguments: argparse.Namespace) -> Profile:
    """`load`, reduced to the sample type of --type, if given: captures of two kinds may share only one."""
    profile = load(path, arguments.of)
    return profile if arguments.type is None else only(profile, value_index(profile, arguments.type))


def load_all(paths: list[Source], arguments: argparse.Namespace) -> Profile:
    """All files as one Profile, added up."""
    return merge([load_type(path, arguments) for path in paths])


def selected(profile: Profile, arguments: argparse.Namespace) -> tuple[Profile, int]:
    """The samples selected by --focus, --ignore and --label, and the index of --type. Raises UsageError where none is left."""
    value = value_index(profile, arguments.type)
    labels = dict(_label(text) for text in arguments.label)
    chosen = select(profile, focus=arguments.focus, ignore=arguments.ignore, labels=labels)
    if profile.samples and not chosen.samples:
        raise UsageError(
            f"none of the {len(profile.samples)} stacks is left by --focus, --ignore and --label",
            remedy="`diagnostics top FILE` without them shows what there is",
        )
    return chosen, value


def write(content: str | bytes, path: Path | None) -> None:
    """Write to `path`, or to standard output. Raises UsageError where the file cannot be written."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", remedy="choose another place with -o") from error


def type_first(profile: Profile, value: int) -> Profile:
    """The profile with the sample type of this index first: formats with one sample type take the first."""
    order = [value, *(index for index in range(len(profile.sample_types)) if index != value)]
    return replace(
        profile,
        sample_types=tuple(profile.sample_types[index] for index in order),
        samples=tuple(replace(s, values=tuple(s.values[index] for index in order)) for s in profile.samples),
    )


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise UsageError(f"--label {text!r} is not KEY=VALUE", remedy="for example --label route=/stream")
    return key, value


def _read_memray(path: Path, of: str) -> bytes:
    command = [
        sys.executable,
        "-X",
        "utf8",
        "-m",
        "diagnostics.monitor.captures.memray_file",
        str(path.absolute()),
        "--of",
        of,
    ]
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=_MEMRAY_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"memray's reader was not done with {path} after {_MEMRAY_SECONDS} s", remedy="take a shorter capture"
        ) from error
    if done.returncode:
        # 2: its message is about the file. Any other code: it crashed, as native code may on a damaged file.
        reason = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode != 2 or not reason:
            last = reason.splitlines()[-1:] or ["nothing was said"]
            reason = f"memray's reader ended with {done.returncode} on {path}: {last[0]}"
        raise UsageError(reason)
    return done.stdout
