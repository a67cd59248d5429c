"""The Collector's configuration: that it would start, that it loses nothing it should keep, that nothing leaves unchecked.

The Collector itself does not install here; the keys of its components are a table (collector_schema.yaml), made from their
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.queries import PENDING
from diagnostics.agent.record import OUTCOMES
from diagnostics.monitor.web.metrics import METRICS
from relay.settings import Settings
from relay.stream.ending import FAILED
from relay.telemetry import NAMES
from relay.telemetry.log_export import FIELDS

ROOT = Path(__file__).parent.parent
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "otel-collector.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "collector_schema.yaml").read_text(encoding="utf-8"))
SECTIONS = ("extensions", "receivers", "processors", "exporters")
PIPELINES: dict[str, dict[str, list[str]]] = CONFIG["service"]["pipelines"]

WORDS = {
    "string": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "duration": re.compile(r"\d+(ms|s|m|h)"),
    "address": re.compile(r"(http://)?[a-z0-9.-]+:\d+"),
}


def given(value: Any) -> Any:
    """The value with `${env:NAME:-default}` replaced by its default, as the Collector reads it where nothing is set."""
    if not isinstance(value, str):
        return value
    replaced = re.sub(r"\$\{env:\w+:-([^}]*)\}", r"\1", value)
    return yaml.safe_load(replaced) if replaced != value else value


def problems(value: Any, wanted: Any, where: str) -> Iterator[str]:
    """What is wrong with `value` by the schema `wanted`."""
    if wanted == "any":
        return
    if isinstance(wanted, Mapping):
        if not isinstance(value, Mapping):
            yield f"{where}: a mapping is needed, not {value!r}"
            return
        kinds = {key.removesuffix("!"): kind for key, kind in wanted.items()}
        for key in wanted:
            if key.endswith("!") and key.removesuffix("!") not in value:
                yield f"{where}: {key.removesuffix('!')} is missing"
        for key, inner in value.items():
            if key not in kinds:
                yield f"{where}: unknown key {key!r}"
            else:
                yield from problems(inner, kinds[key], f"{where}.{key}")
    elif isinstance(wanted, list) or wanted in ("strings", "ints"):
        kind = wanted[0] if isinstance(wanted, list) else wanted.removesuffix("s")
        if not isinstance(value, list) or not value:
            yield f"{where}: a list is needed, not {value!r}"
            return
        for index, inner in enumerate(value):
            yield from problems(inner, kind, f"{where}[{index}]")
    elif not fits(given(value), wanted):
        yield f"{where}: {value!r} is no {wanted}"


def fits(value: Any, kind: str) -> bool:
    if "|" in kind:
        return value in kind.split("|")
    word = WORDS[kind]
    if isinstance(word, re.Pattern):
        return isinstance(value, str) and word.fullmatch(value) is not None
    return isinstance(value, word) and (kind == "bool" or not isinstance(value, bool))


def kind_of(component: str) -> str:
    return component.split("/")[0]


def merged(below: Any, above: Any) -> Any:
    """Two configurations as the Collector merges them: maps by their keys, anything else is replaced."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


OF_COMPOSE = merged(
    CONFIG, yaml.safe_load((ROOT / "docs" / "deploy" / "collector-compose.yaml").read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("config", [CONFIG, OF_COMPOSE], ids=["otel-collector.yaml", "with collector-compose.yaml"])
def test_every_key_is_one_that_its_component_documents(config: dict[str, Any]) -> None:
    found = list(problems(config["service"], SCHEMA["service"], "service"))
    for section in SECTIONS:
        for name, options in config[section].items():
            schema = SCHEMA[section].get(kind_of(name))
            found += problems(options, schema, name) if schema else [f"{section}: {name} is not in the schema"]
    assert found == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("exporters", "elasticsearch", "retry_on_failure"), {"enabled": True}, "unknown key 'retry_on_failure'"),
        (("exporters", "otlp_grpc/jaeger", "sending_queue", "sizer"), "spans", "'spans' is no requests|items|bytes"),
        (("processors", "tail_sampling", "decision_wait"), 630, "630 is no duration"),
        (("receivers", "otlp", "protocols", "grpc"), {}, "endpoint is missing"),
    ],
)
def test_the_schema_has_teeth(path: tuple[str, ...], value: Any, complaint: str) -> None:
    broken = yaml.safe_load((ROOT / "otel-collector.yaml").read_text(encoding="utf-8"))
    section, name, *inner = path
    target = broken[section][name]
    for key in inner[:-1]:
        target = target[key]
    target[inner[-1]] = value
    assert [complaint in line for line in problems(broken[section][name], SCHEMA[section][kind_of(name)], name)] == [
        True
    ]


def test_pipelines_refer_to_what_is_defined_and_all_of_it_is_used() -> None:
    for section in SECTIONS[1:]:
        used = {name for pipeline in PIPELINES.values() for name in pipeline[section]}
        assert used == set(CONFIG[section])
    assert set(CONFIG["service"]["extensions"]) == set(CONFIG["extensions"])
    assert set(PIPELINES) == {"traces", "metrics", "logs"}


def test_in_compose_other_containers_reach_the_receivers_and_nothing_waits_for_elasticsearch() -> None:
    addresses = [protocol["endpoint"] for protocol in OF_COMPOSE["receivers"]["otlp"]["protocols"].values()]
    assert all(address.startswith("0.0.0.0:") for address in addresses)
    pipelines = OF_COMPOSE["service"]["pipelines"]
    for section in SECTIONS[1:]:
        assert {name for pipeline in pipelines.values() for name in pipeline[section]} <= set(OF_COMPOSE[section])
    assert "elasticsearch" not in {name for pipeline in pipelines.values() for name in pipeline["exporters"]}
    # What keeps secrets inside is there, too.
    for name, pipeline in pipelines.items():
        assert f"redaction/{name}" in pipeline["processors"]


def test_storage_names_an_extension() -> None:
    for name in ("otlp_grpc/jaeger", "elasticsearch"):
        queue = CONFIG["exporters"][name]["sending_queue"]
        assert queue["storage"] in CONFIG["extensions"]
        assert queue["batch"]["max_size"] <= queue["queue_size"]


def test_no_deprecated_component_is_used() -> None:
    # batch: deprecated for the exporters' own; otlp, otlphttp, resourcedetection: aliases since 0.144 and later.
    deprecated = {"batch", "otlphttp", "resourcedetection", "logging", "jaeger", "prometheusremotewrite"}
    kinds = {kind_of(name) for section in ("processors", "exporters", "extensions") for name in CONFIG[section]}
    assert kinds & deprecated == set()
    assert "otlp" not in {kind_of(name) for name in CONFIG["exporters"]}


@pytest.mark.parametrize("signal", PIPELINES)
def test_each_pipeline_limits_memory_first_and_redacts(signal: str) -> None:
    processors = PIPELINES[signal]["processors"]
    assert processors[0] == "memory_limiter"
    assert f"redaction/{signal}" in processors
    if "tail_sampling" in processors:  # it makes new batches, so nothing that needs the sender's context may follow
        assert processors[-1] == "tail_sampling"


@pytest.mark.parametrize("signal", PIPELINES)
def test_redaction_fails_closed(signal: str) -> None:
    redaction = CONFIG["processors"][f"redaction/{signal}"]
    assert redaction["allow_all_keys"] is False
    assert not {"ignored_key_patterns", "blocked_key_patterns"} & set(redaction)
    assert "service.name" in redaction["allowed_keys"]  # it applies to resources, too
    assert len(redaction["allowed_keys"]) == len(set(redaction["allowed_keys"]))


def test_what_the_relay_records_passes_and_its_usage_counts_do() -> None:
    allowed = set(CONFIG["processors"]["redaction/traces"]["allowed_keys"])
    elsewhere = {NAMES[name] for name in ("token_type", "token_modality", "reason")}  # of metrics, and of logs
    assert set(NAMES.values()) - elsewhere <= allowed
    assert {name for name in allowed if name.startswith(("gen_ai.", "highwater."))} <= set(NAMES.values())
    assert not allowed & {"client.address", "user_agent.original", "url.query", "url.full"}


def test_the_logs_fields_pass() -> None:
    allowed = set(CONFIG["processors"]["redaction/logs"]["allowed_keys"])
    assert {NAMES[name] for name in FIELDS.values()} <= allowed
    assert not {name for name in allowed if name.startswith(("gen_ai.", "highwater."))} - set(NAMES.values())


def test_the_labels_of_the_metrics_over_otlp_pass() -> None:
    allowed = set(CONFIG["processors"]["redaction/metrics"]["allowed_keys"])
    words = ("operation", "provider", "request_model", "server_address", "server_port", "outcome")
    words += ("token_type", "token_modality")
    assert {NAMES[word] for word in (*words, "error_type", "route", "status")} <= allowed


def test_the_error_messages_of_spans_do_not_pass() -> None:
    transform = CONFIG["processors"]["transform/traces"]
    assert transform["error_mode"] == "propagate"
    assert transform["trace_statements"][0].startswith('set(span.status.message, "")')


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abcdef0123456789", True),
        ("sk-proj-0123456789abcdefXYZ", True),
        ("gpt-4o-mini", False),
        ("sim:events=3,fault=429x2", False),
    ],
)
def test_keys_in_values_are_masked(text: str, masked: bool) -> None:
    patterns = CONFIG["processors"]["redaction/traces"]["blocked_values"]
    assert any(re.search(pattern, text) for pattern in patterns) is masked


def test_every_metric_and_its_labels_pass() -> None:
    labels = {"worker"} | {label for spec in METRICS for label in spec.labels}
    labels |= {label for names in PENDING.values() for label in names}
    assert labels <= set(CONFIG["processors"]["redaction/metrics"]["allowed_keys"])
    (scrape,) = CONFIG["receivers"]["prometheus"]["config"]["scrape_configs"]
    keep = scrape["metric_relabel_configs"][0]["regex"]
    assert [name for name in [*(spec.name for spec in METRICS), *PENDING] if not re.fullmatch(keep, name)] == []
    assert "$" not in keep  # the Collector would take it for a variable


def test_what_is_sampled_for_exists() -> None:
    sampling = CONFIG["processors"]["tail_sampling"]
    policies = {policy["name"]: policy for policy in sampling["policies"]}
    assert {policy["type"] for policy in policies.values()} == {
        "status_code", "string_attribute", "numeric_attribute", "ottl_condition", "probabilistic",
    }  # fmt: skip
    for policy in policies.values():
        assert policy["type"] in policy or policy["type"] == "always_sample"
    outcomes = policies["ended-badly"]["string_attribute"]
    assert outcomes["key"] == NAMES["outcome"]
    assert set(outcomes["values"]) <= set(OUTCOMES)
    assert set(outcomes["values"]) > FAILED
    drops = policies["drops"]["numeric_attribute"]
    assert (drops["key"], drops["min_value"]) == (NAMES["dropped_events"], 1)
    (condition,) = policies["slow-first-chunk"]["ottl_condition"]["span"]
    assert condition.startswith(f'attributes["{NAMES["first_chunk"]}"] > ')


def test_a_decision_outlasts_the_longest_answer() -> None:
    sampling = CONFIG["processors"]["tail_sampling"]
    wait = int(sampling["decision_wait"].removesuffix("s"))
    settings = Settings(_env_file=None)
    assert wait > settings.response_timeout_seconds
    assert wait > settings.read_timeout_seconds
    assert wait > settings.stream_timeout_seconds
    assert sampling["num_traces"] >= wait * sampling["expected_new_traces_per_sec"]
    assert min(sampling["decision_cache"].values()) >= 2 * sampling["num_traces"]


def test_what_listens_does_so_on_loopback() -> None:
    protocols = CONFIG["receivers"]["otlp"]["protocols"].values()
    addresses = [protocol["endpoint"] for protocol in protocols]
    addresses += [
        CONFIG["exporters"]["prometheus"]["endpoint"],
        given(CONFIG["extensions"]["health_check"]["endpoint"]),
    ]
    addresses.append(
        CONFIG["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["host"] + ":"
    )
    assert [address for address in addresses if not address.startswith("127.0.0.1:")] == []
    ports = [address.split(":")[1] for address in addresses]
    assert len(ports) == len(set(ports))
