"""A pytest fixture with which a service's own suite limits the memory of a stream.

    def test_a_stream_leaves_nothing(stream_growth):
        stream_growth("service:app", path="/stream", remains="4 KiB", peak="64 KiB")

The service runs in processes of its own, under real clients, and is judged as by `diagnostics compare`: the whole confidence
interval must lie below the limit. A test that fails shows the figures and the lines that hold the memory.

    @pytest.mark.stream_growth(streams=16, seconds=2.0)     options for the calls in this test

pytest loads this file in every run, so it imports next to nothing before the fixture is used.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .experiment.comparison import Comparison
    from .experiment.experiment import SideOutcome

__all__ = ["StreamGrowth", "parse_bytes", "stream_growth"]

_SIDE = "service"
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)?\s*")
_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SHOWN_SITES = 8


def parse_bytes(limit: int | str) -> int:
    """A limit in bytes, from a number or a text with a unit. Raises ValueError.

    >>> parse_bytes("4 KiB"), parse_bytes(512)
    (4096, 512)
    """
    match = _SIZE.fullmatch(str(limit))
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{limit!r} is no size above 0: write 4096, '4 KiB' or '1.5 MiB'")
    return round(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class _Work:
    """The workload; options of the marker and of the call override single fields.

    looks   the numbers of rounds after which a decision may be taken
    """

    streams: int = 8
    slow: float = 0.5
    slow_bytes_per_second: int = 16 * 1024
    seconds: float = 1.5
    transient: float = 0.5
    looks: tuple[int, ...] = (3, 5, 7)
    start_seconds: float = 30.0
    seed: int = 7


class StreamGrowth:
    """The fixture's value: call it once for each endpoint."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def __call__(
        self,
        app: str | None = None,
        *,
        path: str,
        command: str | None = None,
        remains: int | str = "4 KiB",
        growth: int | str | None = None,
        peak: int | str | None = None,
        method: str = "GET",
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> SideOutcome:
        """Fail the test unless a stream of `path` stays within the limits; return the figures.

        app       ASGI app as `module:attribute`, served by uvicorn; or
        command   a command of any language that contains `{port}`
        remains   bytes that may stay for each stream that has ended
        growth    bytes that an open stream may gain in a second; None: not judged
        peak      bytes per open stream at the highest reading of any round; None: not judged
        options   streams, slow, slow_bytes_per_second, seconds, transient, looks, start_seconds, seed

        Raises UsageError, and TargetError where the service does not serve.
        """
        from ..analysis.decision import Decision
        from .clients.address import RequestMessage
        from .experiment.session import until_done

        work = replace(_Work(), **{**self._options, **options})
        text = body.encode() if isinstance(body, str) else body
        limits = {"remains": parse_bytes(remains)} | ({"growth": parse_bytes(growth)} if growth is not None else {})
        plan = _comparison(
            app, command, path, RequestMessage(method, text, headers or {}), work, limits, environment or {}
        )
        most = parse_bytes(peak) if peak is not None else None

        def refused(side: SideOutcome) -> bool:
            return side.decision is not Decision.BOUNDED or (most is not None and max(side.peaks) > most)

        outcome = until_done(_measured(plan, work, refused, collects=app is not None))
        if refused(outcome):
            pytest.fail(_message(outcome, app or command or "", path, most), pytrace=False)
        return outcome


@pytest.fixture
def stream_growth(request: pytest.FixtureRequest) -> StreamGrowth:
    """A callable that fails the test where an endpoint keeps memory; see `StreamGrowth.__call__`."""
    marker = request.node.get_closest_marker("stream_growth")
    return StreamGrowth(marker.kwargs if marker else {})


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "stream_growth(streams, slow, seconds, transient, looks, ...): options for the fixture stream_growth"
    )


def _comparison(
    app: str | None,
    command: str | None,
    path: str,
    message: Any,
    work: _Work,
    limits: Mapping[str, int],
    environment: Mapping[str, str],
) -> Comparison:
    from ..analysis.decision import Measure, Plan
    from ..errors import UsageError
    from .experiment.comparison import comparison
    from .subjects.command import command_of
    from .subjects.subject import serve_command

    if (app is None) == (command is None):
        raise UsageError("stream_growth needs an app or a command", remedy="give one of them")
    template = shlex.join(serve_command(app, 0)) if app is not None else str(command)
    command_of(template, "command=")
    plan = comparison(
        {_SIDE: template},
        path,
        message,
        streams=work.streams,
        slow=work.slow,
        slow_bytes_per_second=work.slow_bytes_per_second,
        seconds=work.seconds,
        transient_seconds=work.transient,
        least_bytes=limits["remains"],
        least_growth=limits.get("growth", 1),
        plan=Plan(looks=work.looks),
    )
    # The service gets this run's sys.path, with pytest's `pythonpath` setting and changes by a conftest.
    importable = os.pathsep.join(dict.fromkeys(entry or os.getcwd() for entry in sys.path))  # noqa: PTH109
    least = {Measure(name): limit for name, limit in limits.items()}
    return replace(plan, least=least, environment={"PYTHONPATH": importable, **environment})


async def _measured(
    plan: Comparison, work: _Work, refused: Callable[[SideOutcome], bool], *, collects: bool
) -> SideOutcome:
    """The experiment's outcome; one that `refused` rejects has a capture, or the reason why there is none."""
    from .experiment.comparison import on_commands
    from .experiment.experiment import run

    bench = on_commands(work.start_seconds, collects=collects)
    outcome = await run(plan, [_SIDE], seed=work.seed, capture=True, watch=_Silent(), bench=bench, explain=refused)
    return outcome.sides[0]


class _Silent:
    """A `Watch` that shows nothing: pytest shows the result."""

    def doing(self, what: str, step: int, steps: int) -> None:
        pass

    def measured(self, side: str, number: int, figures: Any, peak: float | None) -> None:
        pass


def _message(outcome: SideOutcome, service: str, path: str, most: int | None) -> str:
    from ..analysis.decision import Decision
    from .experiment.comparison import UNITS
    from .report.incident.model import sites

    lines = [f"{path} of {service}: {outcome.decision}"]
    if outcome.finding is not None:
        for measure, interval in outcome.finding.intervals.items():
            least = outcome.finding.least[measure]
            over = "above" if interval.low > least else "within" if interval.high < least else "not certainly within"
            lines.append(
                f"    {measure}  {interval.mean:,.0f} [{interval.low:,.0f} .. {interval.high:,.0f}] {UNITS[measure]},"
                f" {over} the limit of {least:,.0f}"
            )
    over = "" if most is None else f", {'above' if max(outcome.peaks) > most else 'within'} the limit of {most:,}"
    lines.append(f"    peak  {max(outcome.peaks):,.0f} B per open stream at most{over}")
    if outcome.decision is Decision.INCONCLUSIVE:
        lines.append("    undecided: give it more streams, longer rounds (seconds) or more of them (looks)")
    if outcome.capture is None:
        lines.append(f"who holds it is not known: {outcome.unexplained or 'the service is no Python process'}")
        return "\n".join(lines)
    table = sites("held at the end of a capture", outcome.capture.profile)
    lines.append(f"{table.title}:")
    lines += [f"    {held:>12}  {share:>6}  {line}" for line, held, share in table.rows[:_SHOWN_SITES]]
    return "\n".join(lines)
