"""The operations that a request to the agent can name. Each takes the request's parameters and returns JSON.

`readings.py` has those that a monitor asks for all along, `captures.py` those of captures, which are loaded with the first one:
a service that is only looked at does not carry them. Each is quick, because the agent's one thread shares the GIL with the
service, or returns a `Forked`, which a child process answers.
"""

from __future__ import annotations

from ...errors import ProtocolError
from .forked import Forked
from .readings import READINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..state import State
    from .forked import Result

__all__ = ["Forked", "perform"]


def perform(state: State, op: str, params: dict[str, Any]) -> Result:
    """Run the operation `op`. Raises ProtocolError for an operation or parameter that this agent does not know."""
    operation = READINGS.get(op)
    if operation is None and op == "leave":
        from .leaving import leave as operation
    if operation is None:
        from .captures import CAPTURES

        operation = CAPTURES.get(op)
    if operation is None:
        raise ProtocolError(
            f"this agent does not know the operation {op!r}",
            remedy="run the same version of highwater-diagnostics in the service and in the monitor",
        )
    try:
        return operation(state, **params)
    except TypeError as error:
        raise ProtocolError(f"the operation {op!r} does not take {sorted(params)}: {error}") from error
