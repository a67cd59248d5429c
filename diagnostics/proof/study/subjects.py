"""The subjects of a study, by name: every scenario with both its apps, and every well-behaved service alone."""

from __future__ import annotations

from dataclasses import dataclass

from ..scenario import BROKEN, FIXED, Scenario
from ..scenarios import SCENARIOS
from .well_behaved import WELL_BEHAVED

__all__ = ["SUBJECTS", "StudySubject"]


@dataclass(frozen=True)
class StudySubject:
    """One subject. `accusable`: its broken app must be accused; a subject that is not must never be."""

    scenario: Scenario
    sides: tuple[str, ...]
    accusable: bool


SUBJECTS: dict[str, StudySubject] = {
    **{name: StudySubject(known, (BROKEN, FIXED), accusable=True) for name, known in SCENARIOS.items()},
    **{name: StudySubject(known, (FIXED,), accusable=False) for name, known in WELL_BEHAVED.items()},
}
