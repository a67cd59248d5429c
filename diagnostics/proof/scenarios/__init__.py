"""The known blow-ups: one folder each, with `broken.py` and `fixed.py` that a reader can lay side by side.

diff diagnostics/proof/scenarios/unbounded_buffer/{broken,fixed}.py
"""

from __future__ import annotations

import difflib

from ...errors import NotFoundError
from ..scenario import Scenario
from .accumulated_response import SCENARIO as ACCUMULATED_RESPONSE
from .buffer_per_chunk import SCENARIO as BUFFER_PER_CHUNK
from .exception_retention import SCENARIO as EXCEPTION_RETENTION
from .label_cardinality import SCENARIO as LABEL_CARDINALITY
from .missing_write_timeout import SCENARIO as MISSING_WRITE_TIMEOUT
from .never_started_generator import SCENARIO as NEVER_STARTED_GENERATOR
from .no_admission import SCENARIO as NO_ADMISSION
from .orphaned_task import SCENARIO as ORPHANED_TASK
from .span_per_chunk import SCENARIO as SPAN_PER_CHUNK
from .stuck_drain import SCENARIO as STUCK_DRAIN
from .unbounded_buffer import SCENARIO as UNBOUNDED_BUFFER
from .unclosed_upstream import SCENARIO as UNCLOSED_UPSTREAM
from .undying_ticker import SCENARIO as UNDYING_TICKER
from .unterminated_event import SCENARIO as UNTERMINATED_EVENT
from .zombie_subscribers import SCENARIO as ZOMBIE_SUBSCRIBERS

__all__ = ["SCENARIOS", "scenario"]

# In the order of their measures: growth of open streams, load, memory left by ended streams, streams held for ever, exit.
SCENARIOS: dict[str, Scenario] = {
    known.name: known
    for known in (
        UNBOUNDED_BUFFER,
        ACCUMULATED_RESPONSE,
        UNTERMINATED_EVENT,
        SPAN_PER_CHUNK,
        NO_ADMISSION,
        BUFFER_PER_CHUNK,
        ORPHANED_TASK,
        UNDYING_TICKER,
        UNCLOSED_UPSTREAM,
        ZOMBIE_SUBSCRIBERS,
        NEVER_STARTED_GENERATOR,
        EXCEPTION_RETENTION,
        LABEL_CARDINALITY,
        MISSING_WRITE_TIMEOUT,
        STUCK_DRAIN,
    )
}


def scenario(name: str) -> Scenario:
    """The scenario of this name. Raises NotFoundError, which lists the known ones."""
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
