"""The releases of each server that its file in this folder was checked with, and what is said where one is not understood."""

from __future__ import annotations

import os
import sys

__all__ = ["CHECKED", "installed", "moved"]

# The newest release whose private names were checked, by tests/e2e/test_servers.py. A newer one is read likewise for as long
# as its names are where they were.
CHECKED = {
    "aiohttp": "3.14",
    "granian": "2.8",
    "hypercorn": "0.18",
    "sanic": "25.12",
    "tornado": "6.6",
    "uvicorn": "0.54",
}


def moved(server: str, what: str) -> str:
    """The sentence for streams that are unknown, because `what` is not where it was in the release that was checked."""
    return f"{server} {installed(server) or '(unknown release)'}: {what} not found where {CHECKED[server]} keeps it"


def installed(server: str) -> str | None:
    """The release that this process runs, by the folder that its installer left beside it; None where there is none.

    importlib.metadata would tell the same, and costs a megabyte of imports inside the service.
    """
    file: str | None = getattr(sys.modules.get(server), "__file__", None)
    if not file:
        return None
    try:
        beside = os.listdir(os.path.dirname(os.path.dirname(file)))
    except OSError:
        return None
    for name in beside:
        stem, dot, kind = name.rpartition(".")
        package, _, release = stem.rpartition("-")
        if dot and kind == "dist-info" and package.lower() == server:
            return str(release)
    return None
