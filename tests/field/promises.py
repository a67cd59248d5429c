"""What was found of one service: checks that can break, and figures that are only told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KEPT, BROKEN, UNKNOWN = "kept", "broken", "not measured"


@dataclass
class Report:
    """checks    name to (state, what was seen), in the order in which they were made
    figures   name to value, for the table
    """

    checks: dict[str, tuple[str, str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def judge(self, name: str, kept: bool, says: str) -> None:
        self.checks[name] = (KEPT if kept else BROKEN, says)

    def unknown(self, name: str, why: str) -> None:
        self.checks[name] = (UNKNOWN, why)

    @property
    def state(self) -> str:
        states = {state for state, _ in self.checks.values()}
        return BROKEN if BROKEN in states or not states else UNKNOWN if UNKNOWN in states else KEPT

    def named(self, state: str) -> list[str]:
        return [name for name, (is_state, _) in self.checks.items() if is_state == state]

    def to_json(self) -> dict[str, Any]:
        return {"checks": self.checks, "figures": self.figures}

    @staticmethod
    def from_json(told: dict[str, Any]) -> Report:
        return Report({name: (state, says) for name, (state, says) in told["checks"].items()}, told["figures"])
