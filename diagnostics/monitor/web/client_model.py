"""The messages of Prometheus' protobuf exposition format, `io.prometheus.client`, as classes of the protobuf library.

Prometheus' own definition is no Python package, so the fields stand here: their names, numbers and types are the format.
https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

__all__ = ["TYPES", "MetricFamily"]

PACKAGE: Final = "io.prometheus.client"
TYPES: Final = {"counter": 0, "gauge": 1, "summary": 2, "untyped": 3, "histogram": 4, "gaugehistogram": 5}

# message -> field -> (number, type); a type with a capital letter is a message, a * makes it repeated. Of the format's fields
# those are left out that are not written here: float counts, negative buckets.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Exemplar": {"label": (1, "*LabelPair"), "value": (2, "double"), "timestamp": (3, "Timestamp")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double"), "exemplar": (2, "Exemplar"), "created_timestamp": (3, "Timestamp")},
    "Untyped": {"value": (1, "double")},
    "Quantile": {"quantile": (1, "double"), "value": (2, "double")},
    "Summary": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "quantile": (3, "*Quantile"),
        "created_timestamp": (4, "Timestamp"),
    },
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double"), "exemplar": (3, "Exemplar")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "bucket": (3, "*Bucket"),
        "schema": (5, "sint32"),
        "zero_threshold": (6, "double"),
        "zero_count": (7, "uint64"),
        "positive_span": (12, "*BucketSpan"),
        "positive_delta": (13, "*sint64"),
        "created_timestamp": (15, "Timestamp"),
    },
    "Metric": {
        "label": (1, "*LabelPair"),
        "gauge": (2, "Gauge"),
        "counter": (3, "Counter"),
        "summary": (4, "Summary"),
        "untyped": (5, "Untyped"),
        "timestamp_ms": (6, "int64"),
        "histogram": (7, "Histogram"),
    },
    # The type is an enumeration, whose values are written as an integer's are.
    "MetricFamily": {"name": (1, "string"), "help": (2, "string"), "type": (3, "int32"), "metric": (4, "*Metric")},
}


def _made() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="io/prometheus/client/metrics.proto", package=PACKAGE, dependency=[timestamp_pb2.DESCRIPTOR.name]
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            added = message.field.add(name=field, number=number, label=label)
            if kind[0].isupper():
                added.type = kinds.TYPE_MESSAGE
                added.type_name = ".google.protobuf.Timestamp" if kind == "Timestamp" else f".{PACKAGE}.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    # A pool of its own: another definition of the same package, in a library, does not get in the way.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.MetricFamily"))


MetricFamily: Final = _made()
