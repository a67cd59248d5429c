"""The known blow-ups: one folder each, with `broken.py` and `fixed.py` that a reader can lay side by side.

diff diagnostics/proof/scenarios/unbounded_buffer/{broken,fixed}.py
"""

from __future__ import annotations

import difflib

from ...errors import NotFoundError
from ..scenario import Scenario
from .accumulated_response import SCENARIO as ACCUMULATED_RESPONSE
from .orphaned_task import SCENARIO as ORPHANED_TASK
from .unbounded_buffer import SCENARIO as UNBOUNDED_BUFFER
from .unclosed_upstream import SCENARIO as UNCLOSED_UPSTREAM
from .undying_ticker import SCENARIO as UNDYING_TICKER
from .zombie_subscribers import SCENARIO as ZOMBIE_SUBSCRIBERS

__all__ = ["SCENARIOS", "scenario"]

# In the order in which a reader would meet them: what an open stream keeps, what stays of a stream that has ended.
SCENARIOS: dict[str, Scenario] = {
    known.name: known
    for known in (
        UNBOUNDED_BUFFER,
        ACCUMULATED_RESPONSE,
        ORPHANED_TASK,
        UNCLOSED_UPSTREAM,
        ZOMBIE_SUBSCRIBERS,
        UNDYING_TICKER,
    )
}


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
