"""Reads the rules' file, and says whether its owner alone can write it: only such a file may name a command to run.

Who can write a file of rules with commands can run programs as the monitor's user. So the file must belong to that user or to
root, nobody else may have the right to write it, and nobody else may put another file into its place: the folders above it,
too, are root's or the user's, and others may write in them only where the sticky bit keeps them from replacing what is not
theirs (/tmp).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from ...errors import UsageError

__all__ = ["MAX_BYTES", "read_rules"]

MAX_BYTES: Final = 1024 * 1024
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def read_rules(path: Path) -> tuple[str, str]:
    """(the file's text, why others than its owner can change it: "" where they cannot).

    The rights are those of the file that was read, whatever has been put into its place since. Raises UsageError.
    """
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise UsageError(f"{path} is no file", remedy='name a TOML file, or "off"')
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES} bytes", remedy="name a TOML file of rules")
        return data.decode("utf-8"), _file_trust(path, facts) or _folders_trust(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy='name a TOML file, or "off"') from error


def _file_trust(path: Path, facts: os.stat_result) -> str:
    if facts.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to uid {facts.st_uid}, not to uid {os.geteuid()} or root"
    if facts.st_mode & _OTHERS_WRITE:
        return f"{path} has the mode {stat.S_IMODE(facts.st_mode):o}: others than its owner can write it (chmod go-w)"
    return ""


def _folders_trust(path: Path) -> str:
    # Both of the path as it is written, through whose links the file is found, and of where the file lies.
    for folder in {*Path(os.path.abspath(path)).parents, *path.resolve().parents}:  # noqa: PTH100  # without following links
        facts = folder.stat()
        if facts.st_uid not in (0, os.geteuid()):
            return f"the folder {folder} belongs to uid {facts.st_uid}, who can replace what is in it"
        if facts.st_mode & _OTHERS_WRITE and not facts.st_mode & stat.S_ISVTX:
            return f"the folder {folder} has the mode {stat.S_IMODE(facts.st_mode):o}: others can replace what is in it"
    return ""
