"""Reads objects of a running service from the agent's thread: any of them may change or be gone at any moment."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .snapshot import ServerLook

__all__ = [
    "copied",
    "descriptor",
    "get",
    "has_base",
    "modules_in_threads",
]


def copied(live: Iterable[Any]) -> list[Any]:
    """A copy of a collection that other threads change; empty where each try failed (asyncio.all_tasks tries likewise)."""
    for _ in range(100):
        try:
            return list(live)
        except RuntimeError:
            continue
    return []


def get(thing: Any, name: str) -> Any:
    """An attribute; None where the object has none of this name."""
    return getattr(thing, name, None)


def descriptor(transport: Any, look: ServerLook) -> int | None:
    """The file descriptor of an asyncio transport's socket; None where it cannot be read, which `look` counts."""
    try:
        fd: int = transport.get_extra_info("socket").fileno()
    except Exception as error:  # noqa: BLE001  # any transport class, dying at any moment: counted and passed over
        look.could_not(f"descriptor: {type(error).__name__}")
        return None
    return fd if fd >= 0 else None


def has_base(kind: type, module: str, name: str) -> bool:
    """Whether a class is, or derives from, the class `name` of `module`; does not import the module."""
    return any(base.__name__ == name and base.__module__ == module for base in kind.__mro__)


def modules_in_threads() -> Iterator[tuple[str, str]]:
    """Module and function of every frame on the stacks of this process's threads."""
    innermost = list(sys._current_frames().values())
    while innermost:
        # Popped, because this generator's own frame is among them: as a local of itself it would be a reference cycle.
        frame: Any = innermost.pop()
        while frame is not None:
            yield frame.f_globals.get("__name__") or "", frame.f_code.co_name
            frame = frame.f_back
