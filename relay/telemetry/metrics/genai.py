"""The GenAI client metrics, recorded once for each call to an upstream, and the buckets of all histograms.

They are those of the GenAI conventions 0.1.0. Where the names of 1.41 are wanted, too (environment.py), the exporter sends
copies under those: a call is recorded once, whatever is sent of it.

`time_per_output_chunk` is the mean time between a stream's events, recorded when the stream ends: one observation for each
stream and not for each chunk, as the convention has it, which would be work for each chunk. Its percentiles are those of
streams; the ledger has those of single gaps, and Prometheus scrapes them as stream_inter_event_seconds.

Callers choose the model's name, and each value of an attribute makes a new series: only the first MAX_MODELS names that an
upstream has answered for are kept, all others become OTHER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics.export import Histogram as Points
from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData
from opentelemetry.trace import Span

from ...stream.ending import COUNTS, Ending
from ..names import METRICS, NAMES, PROVIDER
from .histograms import Histogram, Histograms, Series

__all__ = ["BUCKETS", "MAX_MODELS", "OTHER", "Operation", "Recorder", "with_names_of_1_41"]

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
# The bounds of both releases of the conventions: 0.1.0 has the same for chunks as for durations.
CHUNKS: Final = DURATIONS[:14]
FIRST_CHUNKS: Final = tuple(sorted({
    *CHUNKS, 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
}))  # fmt: skip
GAPS: Final = tuple(sorted({
    *CHUNKS, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
}))  # fmt: skip
TOKENS: Final = tuple(4**power for power in range(14))
# The convention's bounds end at 10 s, when a stream has hardly begun.
REQUESTS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0,
)  # fmt: skip

BUCKETS: Final = {
    "inference_duration": DURATIONS,
    "inference_first_chunk": FIRST_CHUNKS,
    "inference_per_chunk": GAPS,
    "inference_input": TOKENS,
    "inference_output": TOKENS,
    "http_duration": REQUESTS,
}

# The histograms that 1.41 has under other names, and the type by which it tells those of tokens apart.
_OF_1_41: Final = {
    METRICS["inference_duration"]: (METRICS["duration"], {}),
    METRICS["inference_first_chunk"]: (METRICS["first_chunk"], {}),
    METRICS["inference_per_chunk"]: (METRICS["per_chunk"], {}),
    METRICS["inference_input"]: (METRICS["tokens"], {NAMES["token_type"]: "input"}),
    METRICS["inference_output"]: (METRICS["tokens"], {NAMES["token_type"]: "output"}),
}

_USED: Final = {
    "used_input": "Input tokens used.",
    "used_output": "Output tokens used.",
    "used_cached": "Input tokens that the upstream had in its prompt cache.",
    "used_cache_write": "Input tokens that the upstream put into its prompt cache.",
    "used_reasoning": "Output tokens that were spent on reasoning.",
}


def with_names_of_1_41(data: MetricsData) -> MetricsData:
    """What is to be exported, with a copy of each metric that the conventions 1.41 have under another name."""

    def copies(metrics: Iterable[Metric]) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for metric in metrics:
            if metric.name in _OF_1_41 and isinstance(metric.data, Points):
                name, kind = _OF_1_41[metric.name]
                points: list[HistogramDataPoint] = [*found[name].data.data_points] if name in found else []
                points += [
                    replace(point, attributes={**(point.attributes or {}), **kind}) for point in metric.data.data_points
                ]
                found[name] = replace(metric, name=name, data=replace(metric.data, data_points=points))
        yield from found.values()

    return MetricsData([
        replace(of, scope_metrics=[replace(by, metrics=[*by.metrics, *copies(by.metrics)]) for by in of.scope_metrics])
        for of in data.resource_metrics
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """The attributes of one call: the operation's name, the model, and the upstream's host and port."""

    name: str
    model: str
    address: tuple[str, int]


class _Series(NamedTuple):
    """Where the calls of one kind are recorded: their series of each histogram, and their counts in the order of COUNTS."""

    first_chunk: Series
    per_chunk: Series
    input: Series
    output: Series
    duration: Series
    used: list[int]


class Recorder:
    """Records the metrics of calls: up to five values for each call.

    The tokens that were spent are added up here, and read in the exporter's thread. What the upstream did not tell adds 0, as
    the convention has it: its series is there from the first call on. In the histograms of what one call takes it is left out:
    a 0 there would be a call that took no tokens.
    """

    def __init__(self, meters: MeterProvider, histograms: Histograms) -> None:
        meter = meters.get_meter("highwater.relay")

        def histogram(name: str, unit: str, description: str) -> Histogram:
            return histograms.add(METRICS[name], unit, description, BUCKETS[name])

        self._duration = histogram("inference_duration", "s", "From the call to its upstream to its end.")
        self._first_chunk = histogram("inference_first_chunk", "s", "From the call to its stream's first bytes.")
        self._per_chunk = histogram(
            "inference_per_chunk", "s", "Mean time between two events of a stream; one value a stream."
        )
        self._input = histogram("inference_input", "{token}", "Input tokens of one call, where the upstream tells.")
        self._output = histogram("inference_output", "{token}", "Output tokens of one call, where the upstream tells.")
        self._histograms = histograms
        self._models: set[str] = set()
        # By what distinguishes calls: operation, model, address, and how they ended.
        self._series: dict[tuple[str, str, tuple[str, int], str | None, str], _Series] = {}
        # (operation, model, host, port) -> counts in the order of COUNTS
        self._used: dict[tuple[str, str, str, int], list[int]] = {}
        for number, (name, description) in enumerate(_USED.items()):
            meter.create_observable_counter(METRICS[name], [self._reading(number)], "{token}", description)

    def record(
        self, operation: Operation, ending: Ending, seconds: float, first_chunk: float | None, span: Span
    ) -> None:
        """Record one call that has ended.

        seconds       from the call to its end
        first_chunk   seconds from the call to the first bytes of its stream; None where none came
        span          the CLIENT span, for exemplars
        """
        answered = first_chunk is not None or ending.outcome == "completed"
        model = self._model(operation.model, answered=answered)
        kind = (operation.name, model, operation.address, ending.error_type, ending.outcome)
        series = self._series.get(kind) or self._made(kind)
        origin = self._histograms.origin(span)
        if first_chunk is not None:
            series.first_chunk.record(first_chunk, origin)
        if ending.mean_gap is not None:
            series.per_chunk.record(ending.mean_gap, origin)
        for number, name in enumerate(COUNTS):
            series.used[number] += getattr(ending, name) or 0
        if ending.input_tokens is not None:
            series.input.record(ending.input_tokens, origin)
        if ending.output_tokens is not None:
            series.output.record(ending.output_tokens, origin)
        series.duration.record(seconds, origin)

    def _made(self, kind: tuple[str, str, tuple[str, int], str | None, str]) -> _Series:
        operation, model, address, error_type, outcome = kind
        key = (operation, model, *address)
        labels = _labels(key)
        ended = {**labels, NAMES["error_type"]: error_type} if error_type is not None else labels
        made = self._series[kind] = _Series(
            self._first_chunk.series(labels),
            self._per_chunk.series(labels),
            self._input.series(ended),
            self._output.series(ended),
            # Without the outcome a stream that its client cut short would look like a fast one.
            self._duration.series({**ended, NAMES["outcome"]: outcome}),
            self._used.setdefault(key, [0] * len(COUNTS)),
        )
        return made

    def _model(self, name: str, *, answered: bool) -> str:
        if name not in self._models:
            if not answered or len(self._models) >= MAX_MODELS or len(name) > MAX_NAME_CHARACTERS:
                return OTHER
            self._models.add(name)
        return name

    def _reading(self, number: int) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def read(_: CallbackOptions) -> Iterator[Observation]:
            for key, used in list(self._used.items()):  # in the exporter's thread
                yield Observation(used[number], {**_labels(key), NAMES["token_modality"]: MODALITY})

        return read


def _labels(key: tuple[str, str, str, int]) -> dict[str, Any]:
    operation, model, host, port = key
    return {
        NAMES["operation"]: operation,
        NAMES["provider"]: PROVIDER,
        NAMES["request_model"]: model,
        NAMES["server_address"]: host,
        NAMES["server_port"]: port,
    }
