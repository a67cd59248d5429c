"""PromQL as the dashboards need it: every selector carries the dashboard's job and instance, every rate Grafana's interval.

Functions take metric names and return text. Names are checked against the registry and `PENDING` by the tests, not here.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PENDING", "Labels", "over", "quantile", "rate", "series", "total"]

Labels = tuple[str, ...]

# Metrics that the monitor promises and does not export yet, with their labels (all have `worker`, too). A panel on one of
# them shows no data until it comes. The tests fail as soon as a name here is in the registry: then its line goes.
PENDING: Final[dict[str, Labels]] = {}

CHOSEN: Final = 'job=~"$job", instance=~"$instance"'


def series(metric: str, *matchers: str) -> str:
    """The metric's series of the chosen jobs and instances; `matchers` are more of them, as PromQL writes them."""
    return f"{metric}{{{', '.join((CHOSEN, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """A counter's increase per second, over an interval that Grafana keeps at four scrapes or more."""
    return f"rate({series(metric, *matchers)}[$__rate_interval])"


def total(by: str, expression: str, operation: str = "sum") -> str:
    """`expression`, summed (or else) over all labels but those in `by`, which may be empty."""
    return f"{operation} by ({by}) ({expression})" if by else f"{operation}({expression})"


def quantile(q: float, metric: str, by: str = "") -> str:
    """The q-quantile of a histogram, for each value of the labels in `by`: of its classic buckets, or where Prometheus stores
    none, of the native ones."""
    labels = f"le, {by}" if by else "le"
    classic, native = total(labels, rate(metric + "_bucket")), total(by, rate(metric))
    return f"histogram_quantile({q}, {classic}) or histogram_quantile({q}, {native})"


def over(above: str, below: str) -> str:
    """A ratio that is absent, not infinite, where there is nothing to divide by."""
    return f"{above} / ({below} > 0)"
