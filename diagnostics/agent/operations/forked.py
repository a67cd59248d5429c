"""An answer that a forked child makes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Forked"]


class Forked:
    """An answer that a forked child makes. `work` runs in the child; `after` here, once `ready()`, or at the child's end."""

    __slots__ = ("after", "ready", "remedy", "room_bytes", "seconds", "work")

    def __init__(
        self,
        work: Callable[[], dict[str, Any]],
        *,
        seconds: float,
        room_bytes: int | None,
        remedy: str,
        after: Callable[[], object] = lambda: None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.work = work
        self.seconds = seconds
        self.room_bytes = room_bytes
        self.remedy = remedy
        self.after = after
        self.ready = ready


if TYPE_CHECKING:
    Result = dict[str, Any] | Forked
