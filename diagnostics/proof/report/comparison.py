"""The result of `compare` as JSON: as that of `verify`, without the user's secrets."""

from __future__ import annotations

from typing import Any, Final

from ...analysis.decision import Measure
from ..experiment.comparison import Comparison
from ..experiment.experiment import Outcome
from .tables import to_json as proof_to_json

__all__ = ["to_json"]

_GROWTH_UNIT: Final = "bytes per second of an open stream"


def to_json(outcome: Outcome, command: str) -> dict[str, Any]:
    """The whole result, in the schema of `verify`, without headers and body, which may have keys. `command` repeats it."""
    assert isinstance(outcome.scenario, Comparison)
    numbers = proof_to_json([outcome], command)
    (scenario,) = numbers["scenarios"]
    message = outcome.scenario.message
    scenario["workload"]["model"] = f"{message.method} {outcome.scenario.path}"
    for side in scenario["sides"]:
        if side["finding"] is not None and Measure.GROWTH in side["finding"]["intervals"]:
            side["finding"]["intervals"][Measure.GROWTH]["unit"] = _GROWTH_UNIT
    return numbers
