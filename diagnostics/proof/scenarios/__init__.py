"""The known blow-ups: one folder each, with `broken.py` and `fixed.py` that a reader can lay side by side.

diff diagnostics/proof/scenarios/unbounded_buffer/{broken,fixed}.py
"""

from __future__ import annotations

import difflib

from ...errors import NotFoundError
from ..scenario import Scenario
from .unbounded_buffer import SCENARIO as UNBOUNDED_BUFFER

__all__ = ["SCENARIOS", "scenario"]

SCENARIOS: dict[str, Scenario] = {known.name: known for known in (UNBOUNDED_BUFFER,)}


def scenario(name: str) -> Scenario:
    """The scenario of that name. Raises NotFoundError, which names the known ones."""
    try:
        return SCENARIOS[name]
    except KeyError:
        guess = difflib.get_close_matches(name, SCENARIOS, n=1)
        remedy = f"did you mean {guess[0]!r}? " if guess else ""
        raise NotFoundError(
            f"there is no scenario {name!r}",
            remedy=f"{remedy}known: {', '.join(sorted(SCENARIOS))}",
            code="unknown_scenario",
        ) from None
