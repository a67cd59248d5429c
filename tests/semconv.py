"""The GenAI semantic conventions as a table, and what is wrong with spans and metrics by it.

    python tests/semconv.py CHECKOUT VERSION

writes semconv.json from a checkout of https://github.com/open-telemetry/semantic-conventions-genai (Apache-2.0): the names,
requirement levels and types in the pages that the project generates from its model, and nothing of their text. VERSION says
what was read, and stands in the file. The present one holds what the pages said at two commits before the release 0.1.0, which
has the same spans and metrics under the same names. It was held against the model itself, model/gen-ai/spans.yaml and
metrics.yaml at the first of them and token-metrics.yaml at the second: all names, levels, instruments and units are the same.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.otlp import attributes

__all__ = ["INFERENCE", "TABLE", "wrong_with_metric", "wrong_with_span"]

FILE: Final = Path(__file__).with_suffix(".json")
PAGES: Final = ("client-inference.md", "gen-ai-token-metrics.md")
INFERENCE: Final = "gen_ai.client.inference"

_SECTION: Final = re.compile(r"^#+ (Span|Metric): `([\w.]+)`$")
_ATTRIBUTE: Final = re.compile(r"^\| \[`([\w.]+)`\]\([^)]*\) \| [^|]* \| `([\w -]+)`[^|]* \| ([\w\[\]]+) \|")
_METRIC: Final = re.compile(r"^\| `([\w.]+)` \| (\w+) \| `([^`]+)` \|")

TABLE: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def table_of(pages: Mapping[str, str], version: str) -> dict[str, Any]:
    """The table of the spans and metrics in these pages: name of a page -> its Markdown."""
    table: dict[str, Any] = {"version": version, "licence": "Apache-2.0", "Span": {}, "Metric": {}}
    for text in pages.values():
        section: dict[str, Any] = {}
        for line in text.splitlines():
            if heading := _SECTION.match(line):
                section = table[heading[1]].setdefault(heading[2], {"attributes": {}})
            elif row := _ATTRIBUTE.match(line):
                section["attributes"][row[1]] = f"{row[2].lower()} {row[3]}"
            elif (row := _METRIC.match(line)) and row[1] in table["Metric"]:
                section |= {"instrument": row[2].lower(), "unit": row[3]}
    return table


def wrong_with_span(span: Span) -> Iterator[str]:
    """What the conventions do not have, or have otherwise, about the span of a call to a model."""
    told, known = attributes(span), TABLE["Span"][INFERENCE]["attributes"]
    yield from _wrong_with_attributes(told, known)
    if span.kind != Span.SPAN_KIND_CLIENT:
        yield f"its kind is {span.kind}"
    name = " ".join(filter(None, (told.get("gen_ai.operation.name"), told.get("gen_ai.request.model"))))
    if span.name != name:
        yield f"its name is {span.name!r}, not {name!r}"
    if span.status.code == Status.STATUS_CODE_ERROR and "error.type" not in told:
        yield "error.type is missing on an error"


def wrong_with_metric(metric: Metric) -> Iterator[str]:
    """What the conventions do not have, or have otherwise, about a metric of calls to a model."""
    known = TABLE["Metric"].get(metric.name)
    if known is None:
        yield f"{metric.name} is unknown"
        return
    instrument = {"histogram": "histogram", "sum": "counter"}[metric.WhichOneof("data")]
    if (instrument, metric.unit) != (known["instrument"], known["unit"]):
        yield f"it is a {instrument} in {metric.unit}"
    for point in metric.histogram.data_points or metric.sum.data_points:
        yield from _wrong_with_attributes(attributes(point), known["attributes"])


def _wrong_with_attributes(told: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[str]:
    for name, about in known.items():
        if about.startswith("required ") and name not in told:
            yield f"{name} is missing"
    if "server.address" in told and "server.port" not in told:
        yield "server.port is missing beside server.address"
    for name, value in told.items():
        if name not in known:
            if name.startswith("gen_ai."):
                yield f"{name} is unknown"
        elif not _is_a(value, kind := known[name].split()[-1]):
            yield f"{name} is {value!r}, no {kind}"


def _is_a(value: Any, kind: str) -> bool:
    if kind.endswith("[]"):
        return isinstance(value, list) and all(_is_a(item, kind.removesuffix("[]")) for item in value)
    types = {"string": str, "int": int, "double": float, "boolean": bool, "any": object}
    return isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))


if __name__ == "__main__":
    folder, named = Path(sys.argv[1]) / "docs" / "gen-ai", sys.argv[2]
    found = table_of({page: (folder / page).read_text(encoding="utf-8") for page in PAGES}, named)
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
