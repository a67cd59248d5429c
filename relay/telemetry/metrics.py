"""The GenAI client metrics, recorded once for each call to an upstream, and the Views that give histograms their buckets.

`time_per_output_chunk` is the mean time between a stream's events, recorded when the stream ends: one observation for each
stream and not for each chunk, as the convention has it, which would be work for each chunk. Its percentiles are those of
streams; the ledger has those of single gaps, and Prometheus scrapes them as stream_inter_event_seconds.

Callers choose the model's name, and each value of an attribute makes a new series: only the first MAX_MODELS names that an
upstream has answered for are kept, all others become OTHER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.trace import Span, set_span_in_context

from ..stream.ending import Ending
from .names import METRICS, NAMES, PROVIDER

__all__ = ["MAX_MODELS", "OTHER", "Operation", "Recorder", "views"]

MAX_MODELS: Final = 50
MAX_NAME_CHARACTERS: Final = 128
OTHER: Final = "(other)"

# The convention's bounds in seconds, and longer ones above them for streams.
DURATIONS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36, 1310.72,
    2621.44, 5242.88,
)  # fmt: skip
FIRST_CHUNKS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
GAPS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
TOKENS: Final = tuple(4**power for power in range(14))
# The convention's bounds end at 10 s, when a stream has hardly begun.
REQUESTS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0,
)  # fmt: skip

BUCKETS: Final = {
    "duration": DURATIONS,
    "first_chunk": FIRST_CHUNKS,
    "per_chunk": GAPS,
    "tokens": TOKENS,
    "http_duration": REQUESTS,
}


def views() -> list[View]:
    return [
        View(instrument_name=METRICS[name], aggregation=ExplicitBucketHistogramAggregation(boundaries))
        for name, boundaries in BUCKETS.items()
    ]


@dataclass(frozen=True, slots=True)
class Operation:
    """The attributes of one call: the operation's name, the model, and the upstream's host and port."""

    name: str
    model: str
    address: tuple[str, int]


class Recorder:
    """Records the metrics of calls: up to five SDK records for each call, of a microsecond each (the SDK takes a lock)."""

    def __init__(self, meters: MeterProvider) -> None:
        meter = meters.get_meter("highwater.relay")

        def histogram(name: str, unit: str, description: str) -> Histogram:
            return meter.create_histogram(METRICS[name], unit, description)

        self._duration = histogram("duration", "s", "From the call to its upstream to its end.")
        self._first_chunk = histogram("first_chunk", "s", "From the call to the first bytes of its answer.")
        self._per_chunk = histogram("per_chunk", "s", "Mean time between two events of a stream; one value a stream.")
        self._tokens = histogram("tokens", "{token}", "Tokens used, by type, where the upstream tells.")
        self._models: set[str] = set()

    def record(
        self, operation: Operation, ending: Ending, seconds: float, first_chunk: float | None, span: Span
    ) -> None:
        """Record one call that has ended.

        seconds       from the call to its end
        first_chunk   seconds from the call to the first bytes of the answer; None where none came
        span          the CLIENT span, for exemplars
        """
        context = set_span_in_context(span)
        answered = first_chunk is not None or ending.outcome == "completed"
        labels: dict[str, Any] = {
            NAMES["operation"]: operation.name,
            NAMES["provider"]: PROVIDER,
            NAMES["request_model"]: self._model(operation.model, answered=answered),
            NAMES["server_address"]: operation.address[0],
            NAMES["server_port"]: operation.address[1],
        }
        if first_chunk is not None:
            self._first_chunk.record(first_chunk, labels, context)
        if ending.mean_gap is not None:
            self._per_chunk.record(ending.mean_gap, labels, context)
        for kind, count in (("input", ending.input_tokens), ("output", ending.output_tokens)):
            if count is not None:
                self._tokens.record(count, {**labels, NAMES["token_type"]: kind}, context)
        # Without the outcome a stream that its client cut short would look like a fast one.
        labels[NAMES["outcome"]] = ending.outcome
        if ending.error_type is not None:
            labels[NAMES["error_type"]] = ending.error_type
        self._duration.record(seconds, labels, context)

    def _model(self, name: str, *, answered: bool) -> str:
        if name not in self._models:
            if not answered or len(self._models) >= MAX_MODELS or len(name) > MAX_NAME_CHARACTERS:
                return OTHER
            self._models.add(name)
        return name
