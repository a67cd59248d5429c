"""The release of each server that its file in this folder was checked with, and the sentence where one cannot be read."""

from __future__ import annotations

import os
import sys

__all__ = ["CHECKED", "installed", "moved"]

# The newest release whose private names were checked, by tests/e2e/test_servers.py. A newer one is read likewise as long as
# it still has these names.
CHECKED = {
    "aiohttp": "3.14",
    "granian": "2.8",
    "hypercorn": "0.18",
    "sanic": "25.12",
    "tornado": "6.6",
    "uvicorn": "0.54",
}


def moved(server: str, what: str) -> str:
    """The sentence for unknown streams of `server`, whose attribute `what` is not where the checked release has it."""
    return f"{server} {installed(server) or '(unknown release)'}: {what} not found where {CHECKED[server]} keeps it"


def installed(server: str) -> str | None:
    """The server's installed release, from the name of its .dist-info folder; None where there is none.

    importlib.metadata would cost a megabyte of imports inside the service.
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
