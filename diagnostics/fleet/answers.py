"""What a monitor answers, as far as it is to be believed: JSON of an overview, or the error of a refusal. Pure.

Texts of a monitor go to terminals and pages: control characters, which a terminal would obey, are replaced in all of them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ..errors import TargetError
from .replicas import Replica, replica_of

__all__ = ["json_object", "plain", "refusal_in", "row_of"]

# All control characters but line feed and tab.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def json_object(body: bytes) -> dict[str, Any]:
    """Raises TargetError where it is none."""
    try:
        answer = plain(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise TargetError(f"the answer is not JSON: {error}", remedy="is it a monitor, and of this version?") from error
    if not isinstance(answer, dict):
        raise TargetError(
            f"the answer is a JSON {type(answer).__name__}", remedy="is it a monitor, and of this version?"
        )
    return answer


def refusal_in(body: bytes) -> dict[str, str] | None:
    """The error of a refusal by a monitor: code, message, remedy; None for any other body."""
    try:
        return {name: str(value) for name, value in plain(json.loads(body))["error"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def row_of(name: str, url: str, overview: dict[str, Any]) -> Replica:
    """The row of a monitor that answered with this; where it is no overview, a row that says so."""
    try:
        return replica_of(name, url, overview)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return Replica(name, url, error=f"its answer is none of a monitor of ours: {error!r:.200}")


def plain(value: Any) -> Any:
    """The same JSON without control characters."""
    if isinstance(value, str):
        return value if value.isprintable() else _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {plain(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value
