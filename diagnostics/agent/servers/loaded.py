"""Which servers that serve with asyncio tasks a process may be: those that it has imported."""

from __future__ import annotations

import sys

__all__ = ["loaded"]

# Only a process that may serve with this server imports one of the modules.
_SERVES_WITH = {
    "aiohttp": ("aiohttp.web",),
    "granian": ("granian.server",),
    "hypercorn": ("hypercorn.asyncio", "hypercorn.trio"),
    "sanic": ("sanic.server",),
    "tornado": ("tornado.httpserver",),
}


def loaded() -> list[str]:
    """The names of the servers that are imported; one lookup for each of their modules."""
    return [name for name, modules in _SERVES_WITH.items() if any(module in sys.modules for module in modules)]
