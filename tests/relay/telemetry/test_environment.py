"""The OTEL_* variables: which signals have an endpoint, and the warnings about wrong values."""

from __future__ import annotations

import logging

import pytest

from relay.telemetry.environment import exported_signals

ALL = {"traces", "metrics", "logs"}
SOMEWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("given", "signals"),
    [
        ({}, set()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, set()),
        (SOMEWHERE, ALL),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "  "}, set()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, {"traces"}),
        ({**SOMEWHERE, "OTEL_SDK_DISABLED": "TRUE"}, set()),
        ({**SOMEWHERE, "OTEL_METRICS_EXPORTER": "none"}, {"traces", "logs"}),
        ({**SOMEWHERE, "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}, {"metrics"}),
        ({**SOMEWHERE, "OTEL_LOGS_EXPORTER": "console,otlp"}, ALL),
    ],
)
def test_a_signal_that_has_an_endpoint_goes_there(
    given: dict[str, str], signals: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert exported_signals(given) == signals
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("given", "signals", "complaint"),
    [
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, {"traces", "logs"}, "OTEL_METRICS_EXPORTER is 'prometheus'"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "localhost:4318"}, {"traces", "metrics"}, "must be an http or https URL"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://[::1"}, {"traces", "metrics"}, "must be an http or https URL"),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:x"}, {"traces", "metrics"}, "must be an http or https URL"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ALL, "speaks http/protobuf only"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, ALL, "speaks http/protobuf only"),
    ],
)
def test_what_is_wrong_is_said_once_and_costs_its_signal(
    given: dict[str, str], signals: set[str], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert exported_signals({**SOMEWHERE, **given}) == signals
    (message,) = caplog.messages
    assert complaint in message
