"""An OpenAI-compatible upstream with faults, always a process of its own: `relay simulate`.

The model's name selects the answer (`grammar`), which has the same bytes for the same name and seed (`events`) and is sent at
the requested pace, with backpressure (`stream`), over plain HTTP/1.1 (`http`). It costs far less CPU for each event than any
relay, so that a measurement of the relay is not one of the simulator. The manual is docs/simulator.md.
"""

from __future__ import annotations

from .command import configure, main, run

__all__ = ["configure", "main", "run"]
