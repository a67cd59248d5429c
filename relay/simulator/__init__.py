"""An OpenAI-compatible upstream with faults, always a process of its own: `relay simulate`.

What it answers is said by the model's name (`grammar`), is the same bytes for the same name and seed (`events`), and
leaves at the asked pace with honoured back-pressure (`stream`) over plain HTTP/1.1 (`http`); it costs far less CPU per
event than any relay, so that it is never what a measurement measures. The manual is docs/simulator.md.
"""

from __future__ import annotations

from .command import configure, main, run

__all__ = ["configure", "main", "run"]
