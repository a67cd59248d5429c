"""Checks that results can be written, before an experiment of minutes begins."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UsageError

__all__ = ["check_file", "make_folder"]


def check_file(path: Path | None, option: str) -> None:
    """Raise UsageError, naming `option`, where the file `path` cannot be written; None: nothing will be."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder", remedy="name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}", remedy=f"mkdir -p {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{option} {path} may not be written", remedy="give a place that may")


def make_folder(path: Path | None, option: str) -> None:
    """Create the folder. Raises UsageError, naming `option`, where that fails; None: nothing will be written."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{option} {path}: {error.strerror}", remedy="give a folder, or a name that is free"
        ) from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"{option} {path} may not be written", remedy="give a place that may")
