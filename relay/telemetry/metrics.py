"""The GenAI client metrics, recorded once for each call to an upstream, and the Views that give histograms their buckets.

There are two sets: that of the GenAI conventions 0.1.0, and that of 1.41, which they renamed (environment.py chooses). Beside
their names, tokens differ: 0.1.0 has counters, for what was spent, and histograms, for what one call takes.

`time_per_output_chunk` is the mean time between a stream's events, recorded when the stream ends: one observation for each
stream and not for each chunk, as the convention has it, which would be work for each chunk. Its percentiles are those of
streams; the ledger has those of single gaps, and Prometheus scrapes them as stream_inter_event_seconds.

Callers choose the model's name, and each value of an attribute makes a new series: only the first MAX_MODELS names that an
upstream has answered for are kept, all others become OTHER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter, MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.trace import Span, set_span_in_context

from ..stream.ending import COUNTS, Ending
from .loop_turns import Step
from .names import METRICS, NAMES, PROVIDER

__all__ = ["MAX_MODELS", "OTHER", "Measured", "Operation", "Recorder", "views"]

MAX_MODELS: Final = 50
MAX_NAME_CHARACTERS: Final = 128
OTHER: Final = "(other)"
# An OpenAI-style upstream tells how many tokens were used, and not of what.
MODALITY: Final = "unknown"

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
# The bounds that 0.1.0 has for both, and shorter ones below them for gaps: a fast upstream's are all under 10 ms.
INFERENCE_CHUNKS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
INFERENCE_GAPS: Final = (0.00125, 0.0025, 0.005, *INFERENCE_CHUNKS)
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
    "inference_duration": DURATIONS,
    "inference_first_chunk": INFERENCE_CHUNKS,
    "inference_per_chunk": INFERENCE_GAPS,
    "inference_input": TOKENS,
    "inference_output": TOKENS,
    "http_duration": REQUESTS,
}


def views() -> list[View]:
    return [
        View(instrument_name=METRICS[name], aggregation=ExplicitBucketHistogramAggregation(boundaries))
        for name, boundaries in BUCKETS.items()
    ]


@dataclass(frozen=True, slots=True)
class Operation:
    """The attributes of one call: the operation's name, the model, the upstream's host and port, whether the answer streams."""

    name: str
    model: str
    address: tuple[str, int]
    streams: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """One call that has ended.

    seconds       from the call to its end
    first_chunk   seconds from the call to the first bytes of the answer; None where none came
    span          the CLIENT span, for exemplars
    """

    operation: Operation
    ending: Ending
    seconds: float
    first_chunk: float | None
    span: Span


class Recorder:
    """Records the metrics of calls, each set in a step of its own: up to ten SDK records, of some microseconds each, as the SDK
    takes a lock.

    of_1_41   whether the metrics of the conventions 1.41 are recorded, too
    """

    def __init__(self, meters: MeterProvider, *, of_1_41: bool = True) -> None:
        meter = meters.get_meter("highwater.relay")
        self._sets: tuple[_Set, ...] = (_Inference(meter), *((_Operations(meter),) if of_1_41 else ()))
        self._models: set[str] = set()

    def record(self, call: Measured) -> None:
        for step in self.steps(call):
            step()

    def steps(self, call: Measured) -> list[Step]:
        """The recording of one call, in steps."""
        operation, ending = call.operation, call.ending
        answered = call.first_chunk is not None or ending.outcome == "completed"
        labels: dict[str, Any] = {
            NAMES["operation"]: operation.name,
            NAMES["provider"]: PROVIDER,
            NAMES["request_model"]: self._model(operation.model, answered=answered),
            NAMES["server_address"]: operation.address[0],
            NAMES["server_port"]: operation.address[1],
        }
        failure = {} if ending.error_type is None else {NAMES["error_type"]: ending.error_type}
        context = set_span_in_context(call.span)
        return [lambda each=each: each.record(call, labels, failure, context) for each in self._sets]  # type: ignore[misc]

    def _model(self, name: str, *, answered: bool) -> str:
        if name not in self._models:
            if not answered or len(self._models) >= MAX_MODELS or len(name) > MAX_NAME_CHARACTERS:
                return OTHER
            self._models.add(name)
        return name


class _Set(Protocol):
    def record(self, call: Measured, labels: dict[str, Any], failure: dict[str, str], context: Context) -> None:
        """`failure`: the attribute with the error's type, of a call that failed."""


class _Inference:
    """The metrics of the conventions 0.1.0.

    A count of tokens that the upstream did not tell adds 0 to its counter, as the convention has it: its series is there from
    the first call on. In the histograms it is left out: a 0 there would be a call that took no tokens.
    """

    def __init__(self, meter: Meter) -> None:
        self._duration = _histogram(meter, "inference_duration", "s", "From the call to its upstream to its end.")
        self._first_chunk = _histogram(
            meter, "inference_first_chunk", "s", "From the call to its stream's first bytes."
        )
        self._per_chunk = _histogram(
            meter, "inference_per_chunk", "s", "Mean time between two events of a stream; one value a stream."
        )
        self._of_one_call = (
            ("input_tokens", _histogram(meter, "inference_input", "{token}", "Input tokens of one call.")),
            ("output_tokens", _histogram(meter, "inference_output", "{token}", "Output tokens of one call.")),
        )
        words = ("used_input", "used_output", "used_cached", "used_cache_write", "used_reasoning")
        self._used = tuple(
            (count, _counter(meter, name, USED[count])) for count, name in zip(COUNTS, words, strict=True)
        )

    def record(self, call: Measured, labels: dict[str, Any], failure: dict[str, str], context: Context) -> None:
        ending, streams = call.ending, call.operation.streams
        if call.first_chunk is not None and streams:
            self._first_chunk.record(call.first_chunk, labels, context)
        if ending.mean_gap is not None:
            self._per_chunk.record(ending.mean_gap, labels, context)
        by_modality = {**labels, NAMES["token_modality"]: MODALITY}
        for name, used in self._used:
            used.add(getattr(ending, name) or 0, by_modality, context)
        failed = {**labels, **failure}
        for name, of_one_call in self._of_one_call:
            count = getattr(ending, name)
            if count is not None:
                of_one_call.record(count, failed, context)
        # Without the outcome a stream that its client cut short would look like a fast one.
        self._duration.record(call.seconds, {**failed, NAMES["outcome"]: ending.outcome}, context)


class _Operations:
    """The metrics of the conventions 1.41."""

    def __init__(self, meter: Meter) -> None:
        self._duration = _histogram(meter, "duration", "s", "From the call to its upstream to its end.")
        self._first_chunk = _histogram(meter, "first_chunk", "s", "From the call to the first bytes of its answer.")
        self._per_chunk = _histogram(
            meter, "per_chunk", "s", "Mean time between two events of a stream; one value a stream."
        )
        self._tokens = _histogram(meter, "tokens", "{token}", "Tokens used, by type, where the upstream tells.")

    def record(self, call: Measured, labels: dict[str, Any], failure: dict[str, str], context: Context) -> None:
        ending = call.ending
        if call.first_chunk is not None:
            self._first_chunk.record(call.first_chunk, labels, context)
        if ending.mean_gap is not None:
            self._per_chunk.record(ending.mean_gap, labels, context)
        for kind, count in (("input", ending.input_tokens), ("output", ending.output_tokens)):
            if count is not None:
                self._tokens.record(count, {**labels, NAMES["token_type"]: kind}, context)
        self._duration.record(call.seconds, {**labels, **failure, NAMES["outcome"]: ending.outcome}, context)


USED: Final = {
    "input_tokens": "Input tokens used.",
    "output_tokens": "Output tokens used.",
    "cached_tokens": "Input tokens that the upstream had in its prompt cache.",
    "cache_write_tokens": "Input tokens that the upstream put into its prompt cache.",
    "reasoning_tokens": "Output tokens that were spent on reasoning.",
}


def _histogram(meter: Meter, name: str, unit: str, description: str) -> Histogram:
    return meter.create_histogram(METRICS[name], unit, description)


def _counter(meter: Meter, name: str, description: str) -> Counter:
    return meter.create_counter(METRICS[name], "{token}", description)
