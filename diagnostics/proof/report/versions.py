"""The versions of the software that a result was made with, so that different results can be explained later."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("highwater-diagnostics", "aiohttp", "fastapi", "httptools", "memray", "starlette", "uvicorn", "uvloop")


def versions() -> dict[str, str]:
    """Interpreter, kernel and packages by name; packages that are not installed are left out."""
    return {
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        **{name: installed for name in _PACKAGES if (installed := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
