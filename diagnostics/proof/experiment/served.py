"""Checks that the service did its work: if not, its memory proves nothing."""

from __future__ import annotations

from ...errors import TargetError
from ..clients.load import LoadReport
from ..scenario import Scenario

__all__ = ["check_load"]

# With a larger share of failed clients the service has failed.
_MOST_FAILED = 0.1


def check_load(report: LoadReport, side: str, scenario: Scenario, output: str, *, open_streams: int = 0) -> None:
    """Raise TargetError where the service did not do its work, so that its memory proves nothing.

    With an endless upstream a stream that ends is a failure, too: a service that drops its clients has flat memory. So has
    one that sends them nothing: `open_streams` times the workload's `least_events` must have arrived (0: not checked).
    """
    work = scenario.workload
    failed = report.outcomes["failed"] + (0 if work.may_reject else report.outcomes["rejected"])
    why = dict(report.errors)
    if work.upstream.events is None and not work.may_end and report.outcomes["completed"]:
        failed += report.outcomes["completed"]
        why["ended_early"] = report.outcomes["completed"]
    if failed > _MOST_FAILED * report.streams:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(why.items()))
        raise TargetError(
            f"the {side} app failed {failed} of {report.streams} streams ({reasons}); its last output:\n{output}",
            code="target_answers_errors",
        )
    if report.events < work.least_events * open_streams:
        raise TargetError(
            f"the {side} app sent {report.events} events to {open_streams} open streams, too few to have done its work;"
            f" its last output:\n{output}",
            code="target_serves_nothing",
        )
