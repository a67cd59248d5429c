"""What this process could import of memray, found without importing it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["has_memray", "memray"]


def has_memray() -> bool:
    """Whether this process can import memray; does not import it."""
    if sys.modules.get("memray") is not None:
        return True
    return _spec() is not None


def memray() -> dict[str, Any]:
    """Version and folder of this process's memray, for the process that reads its files; does not import it."""
    if not has_memray():
        return {"memray": False, "memray_version": None, "memray_folder": None}
    loaded = sys.modules.get("memray")
    if loaded is None:
        spec = _spec()
        origin = spec.origin if spec is not None else None
    else:
        origin = loaded.__file__
    folder = os.path.dirname(origin or "")
    return {"memray": True, "memray_version": _version(folder), "memray_folder": os.path.dirname(folder)}


def _spec() -> Any:
    """`importlib.util.find_spec("memray")`, without that module, which a small service has not loaded."""
    if "memray" in sys.modules:  # as None: an import of it is refused
        return None
    for finder in list(sys.meta_path):
        find = getattr(finder, "find_spec", None)
        spec = None if find is None else find("memray", None)
        if spec is not None:
            return spec
    return None


def _version(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
            words = file.read().split()  # __version__ = "1.2.3"
    except OSError:
        return None
    return next((word.strip("\"'") for word in words if word[:1] in "\"'" and word[1:2].isdecimal()), None)
