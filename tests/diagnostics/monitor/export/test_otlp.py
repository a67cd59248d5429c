"""An OTLP request keeps the rules of profiles.proto for any profile, and says what the profile says."""

from __future__ import annotations

import gzip
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesPartialSuccess,
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)

from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.errors import UsageError
from diagnostics.monitor.export import otlp
from diagnostics.monitor.export.payload import Source

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))
from strategies import profiles  # found once the path is set

SOURCE = Source("shop", "web-1", "0", 4711)
TABLES = ("mapping", "location", "function", "link", "string", "attribute", "stack")


def request_of(profile: Profile) -> Any:
    """What a receiver reads, from the bytes that are posted."""
    payload = otlp.Otlp().payload(profile, SOURCE, 60.0)
    assert dict(payload.headers) == {"Content-Encoding": "gzip", "OTLP-Profiles-Development-Version": "1"}
    assert payload.content_type == "application/x-protobuf"
    return ExportProfilesServiceRequest.FromString(gzip.decompress(payload.body))


def profiles_in(request: Any) -> list[Any]:
    (resource,) = request.resource_profiles
    (scope,) = resource.scope_profiles
    return list(scope.profiles)


def read(request: Any) -> list[Counter[Any]]:
    """For each OTLP profile the value of each (stack, labels)."""
    tables = request.dictionary
    text = tables.string_table

    def frame(index: int) -> Frame:
        (line,) = tables.location_table[index].lines
        function = tables.function_table[line.function_index]
        return Frame(text[function.name_strindex], text[function.filename_strindex], line.line)

    def label(index: int) -> tuple[str, str]:
        attribute = tables.attribute_table[index]
        return text[attribute.key_strindex], attribute.value.string_value

    found = []
    for profile in profiles_in(request):
        values: Counter[Any] = Counter()
        for sample in profile.samples:
            stack = tuple(frame(index) for index in tables.stack_table[sample.stack_index].location_indices)
            labels = tuple(label(index) for index in sample.attribute_indices)
            assert (stack, labels) not in values, "two samples of one identity"
            (values[stack, labels],) = sample.values
        found.append(values)
    return found


@given(profiles())
@settings(max_examples=60, deadline=None)
def test_a_request_keeps_the_rules_and_says_what_the_profile_says(profile: Profile) -> None:
    small = [replace(each, values=tuple(value % 2**40 for value in each.values)) for each in profile.samples]
    profile = replace(profile, samples=tuple(small))
    request = request_of(profile)
    tables = {name: list(getattr(request.dictionary, f"{name}_table")) for name in TABLES}

    # profiles.proto: "The element at index 0 MUST be the zero value", and of links the one with as many bytes as ids have.
    assert tables["string"][0] == ""
    assert (tables["link"][0].trace_id, tables["link"][0].span_id) == (bytes(16), bytes(8))
    for name in ("mapping", "location", "function", "attribute", "stack"):
        assert not tables[name][0].ByteSize(), name

    # "There SHOULD NOT be duplicate items", and none that nothing names.
    for name, entries in tables.items():
        packed = [each if isinstance(each, str) else each.SerializeToString(deterministic=True) for each in entries]
        assert len(set(packed)) == len(packed), name
    out = profiles_in(request)
    kinds = [kind for each in out for kind in (each.sample_type, each.period_type)]
    named = {
        "stack": {sample.stack_index for each in out for sample in each.samples},
        "attribute": {index for each in out for sample in each.samples for index in sample.attribute_indices}
        | {index for location in tables["location"] for index in location.attribute_indices},
        "location": {index for stack in tables["stack"] for index in stack.location_indices},
        "function": {line.function_index for location in tables["location"] for line in location.lines},
        "mapping": {location.mapping_index for location in tables["location"]},
        "link": {sample.link_index for each in out for sample in each.samples},
        "string": {index for kind in kinds for index in (kind.type_strindex, kind.unit_strindex)}
        | {index for each in tables["function"] for index in (each.name_strindex, each.filename_strindex)}
        | {each.key_strindex for each in tables["attribute"]},
    }
    for name, indexes in named.items():
        assert indexes | {0} == set(range(len(tables[name]))), name

    # One profile for each sample type, with each sample's value of it.
    assert [tables["string"][each.sample_type.type_strindex] for each in out] == [k.name for k in profile.sample_types]
    expected = []
    for at in range(len(profile.sample_types)):
        sums: Counter[Any] = Counter()
        for sample in profile.samples:
            sums[sample.stack, sample.labels] += sample.values[at]
        expected.append(Counter({identity: value for identity, value in sums.items() if value}))
    assert read(request) == expected
    assert all(each.time_unix_nano == pytest.approx(profile.time * 1e9, abs=1000) for each in out)


def test_a_sampled_heap_says_whose_it_is_and_how_it_was_sampled() -> None:
    sample = Sample((Frame("Cache.fill", "/srv/app.py", 41),), (1000, 2), (("age", "over 1 day"),))
    profile = Profile(
        "heap", (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count")), (sample,),
        time=1_790_000_000.0, duration=0.0, meta={"sampled": {"rate_bytes": 524288}},
    )  # fmt: skip
    request = request_of(profile)
    (resource,) = request.resource_profiles
    attributes = {pair.key: pair.value.string_value or pair.value.int_value for pair in resource.resource.attributes}
    assert attributes["service.name"] == "shop"
    assert attributes["host.name"] == "web-1"
    assert attributes["service.instance.id"] == "web-1-0"
    assert attributes["process.pid"] == 4711
    assert resource.scope_profiles[0].scope.name == "highwater-diagnostics"
    text = request.dictionary.string_table
    for out in profiles_in(request):
        assert (text[out.period_type.type_strindex], text[out.period_type.unit_strindex]) == ("space", "bytes")
        assert out.period == 524288
        assert out.duration_nano == 0
    frame_types = {
        request.dictionary.attribute_table[index].value.string_value
        for location in request.dictionary.location_table
        for index in location.attribute_indices
    }
    assert frame_types == {"cpython"}


def test_names_that_are_no_utf8_are_sent_as_they_can_be() -> None:
    sample = Sample((Frame("main", "/srv/\udcff.py", 1),), (1,))
    request = request_of(Profile("heap", (ValueType("inuse_space", "bytes"),), (sample,), 0.0, 0.0))
    assert "/srv/\\udcff.py" in request.dictionary.string_table


def test_a_partial_success_is_an_objection_only_where_it_has_refused_profiles() -> None:
    def answer(rejected: int, message: str) -> bytes:
        partial = ExportProfilesPartialSuccess(rejected_profiles=rejected, error_message=message)
        return ExportProfilesServiceResponse(partial_success=partial).SerializeToString()

    wire = otlp.Otlp()
    assert wire.objection(b"") is None
    assert wire.objection(answer(0, "consider a longer interval")) is None
    assert wire.objection(answer(2, "no room")) == "no room"
    assert wire.objection(answer(2, "")) == "it gives no reason"
    assert wire.objection(b"<html>") is None


def test_classes_of_another_version_are_refused_by_the_fields_that_moved(monkeypatch: Any) -> None:
    # opentelemetry-proto 1.9 had a sample's values where 1.10 has its attributes.
    monkeypatch.setitem(otlp._FIELDS["Sample"], "values", 2)
    with pytest.raises(UsageError, match=r"another version of OTLP profiles: Sample\.values moved"):
        otlp.Otlp()


def test_without_the_extra_the_error_names_it(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.profiles.v1development", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.profiles.v1development", None)
    with pytest.raises(UsageError, match=r"needs the module .*; pip install 'highwater-diagnostics\[otlp\]'"):
        otlp.Otlp()
