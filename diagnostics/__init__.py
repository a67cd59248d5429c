"""Highwater's diagnostics: where a streaming service's memory is, what holds it, why, and whether a fix is a fix.

The public names are imported when they are first used, so that `import diagnostics` costs a service next to nothing.
"""

from __future__ import annotations

# This file is also loaded with the agent into other people's services: importing typing would be half its cost.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .agent.instrument.asgi import instrument
    from .agent.instrument.monitor_process import MonitorProcess, start_monitor
    from .agent.ledger import StreamLedger
    from .agent.record import StreamRecord
    from .analysis.profile import Frame, Profile, Sample, ValueType
    from .errors import DiagnosticsError

__version__ = "0.2.0"

_HOMES = {
    "DiagnosticsError": "errors",
    "Frame": "analysis.profile",
    "MonitorProcess": "agent.instrument.monitor_process",
    "Profile": "analysis.profile",
    "Sample": "analysis.profile",
    "StreamLedger": "agent.ledger",
    "StreamRecord": "agent.record",
    "ValueType": "analysis.profile",
    "instrument": "agent.instrument.asgi",
    "start_monitor": "agent.instrument.monitor_process",
}

__all__ = [
    "DiagnosticsError",
    "Frame",
    "MonitorProcess",
    "Profile",
    "Sample",
    "StreamLedger",
    "StreamRecord",
    "ValueType",
    "instrument",
    "start_monitor",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
