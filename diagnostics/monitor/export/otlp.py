"""Pushes as OTLP/HTTP takes them: an ExportProfilesServiceRequest in gzip, for POST /v1development/profiles.

The signal is in development: its messages change without a new name. This file writes development version 1, the one of
opentelemetry-proto 1.10 and 1.11, says so in the header that newer receivers compare, and refuses to start where the installed
classes have their fields elsewhere. The classes are those of opentelemetry-proto, an extra.

What has to hold of a message (profiles.proto): the first entry of each table is its zero value, so that an index of 0 is
"none"; no table has an entry twice, or one that nothing names; a Profile has one sample type, so a profile of ours with two
becomes two Profiles, which share the tables; stacks are leaf first.

Sources: https://github.com/open-telemetry/opentelemetry-proto/blob/v1.11.0/opentelemetry/proto/profiles/v1development/profiles.proto
and https://opentelemetry.io/docs/specs/otlp/#otlphttp-request.
"""

from __future__ import annotations

import gzip
from fractions import Fraction
from typing import Any, Final

from ... import __version__
from ...analysis.profile import Frame, Profile
from ...analysis.sampling import rate_of
from ...errors import UsageError
from .payload import Payload, Source

__all__ = ["DEVELOPMENT_VERSION", "Otlp", "request_of"]

DEVELOPMENT_VERSION: Final = "1"
_SECOND: Final = 1_000_000_000  # nanoseconds
_INSTALL: Final = "pip install 'highwater-diagnostics[otlp]'"
# Where version 1 has the fields that are written here.
_FIELDS: Final = {
    "ProfilesDictionary": {
        "mapping_table": 1, "location_table": 2, "function_table": 3, "link_table": 4, "string_table": 5,
        "attribute_table": 6, "stack_table": 7,
    },
    "ResourceProfiles": {"resource": 1, "scope_profiles": 2},
    "ScopeProfiles": {"scope": 1, "profiles": 2},
    "Profile": {"sample_type": 1, "samples": 2, "time_unix_nano": 3, "duration_nano": 4, "period_type": 5, "period": 6},
    "ValueType": {"type_strindex": 1, "unit_strindex": 2},
    "Sample": {"stack_index": 1, "attribute_indices": 2, "link_index": 3, "values": 4},
    "Stack": {"location_indices": 1},
    "Location": {"mapping_index": 1, "lines": 3, "attribute_indices": 4},
    "Line": {"function_index": 1, "line": 2},
    "Function": {"name_strindex": 1, "filename_strindex": 3},
    "KeyValueAndUnit": {"key_strindex": 1, "value": 2},
}  # fmt: skip


class Otlp:
    """Raises UsageError where the classes are not installed, or write another version."""

    def __init__(self) -> None:
        self._service, _ = _classes()
        from google.protobuf.message import DecodeError

        self._damaged = DecodeError

    def payload(self, profile: Profile, source: Source, seconds: float) -> Payload:
        body = gzip.compress(request_of(profile, source).SerializeToString(), compresslevel=6, mtime=0)
        headers = (("Content-Encoding", "gzip"), ("OTLP-Profiles-Development-Version", DEVELOPMENT_VERSION))
        return Payload(source.worker, body, "application/x-protobuf", headers=headers)

    def objection(self, answer: bytes) -> str | None:
        """A partial success: it has refused profiles, and another attempt must not be made."""
        try:
            partial = self._service.ExportProfilesServiceResponse.FromString(answer).partial_success
        except self._damaged:  # JSON, or a page: the status alone says that it was taken
            return None
        return (partial.error_message or "it gives no reason") if partial.rejected_profiles else None


def _classes() -> tuple[Any, Any]:
    """The modules of the service's messages and of the profiles'."""
    try:
        from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
        from opentelemetry.proto.profiles.v1development import profiles_pb2
    except ModuleNotFoundError as error:
        raise UsageError(
            f"DIAGNOSTICS_PROFILES_PROTOCOL is 'otlp', which needs the module {error.name!r}", remedy=_INSTALL
        ) from error
    moved = [
        f"{message}.{field}"
        for message, fields in _FIELDS.items()
        for field, number in fields.items()
        if _number_of(profiles_pb2, message, field) != number
    ]
    if moved:
        raise UsageError(
            f"the installed opentelemetry-proto is of another version of OTLP profiles: {', '.join(moved[:5])} moved",
            remedy="install opentelemetry-proto 1.45, or set DIAGNOSTICS_PROFILES_PROTOCOL=pyroscope",
        )
    return profiles_service_pb2, profiles_pb2


def _number_of(module: Any, message: str, field: str) -> int | None:
    described = module.DESCRIPTOR.message_types_by_name.get(message)
    found = described.fields_by_name.get(field) if described is not None else None
    return found.number if found is not None else None


def request_of(profile: Profile, source: Source) -> Any:
    """The ExportProfilesServiceRequest for a profile, with one OTLP Profile for each of its sample types.

    A sample without a value of a type is not in that type's Profile. Raises UsageError (see Otlp).
    """
    service, profiles = _classes()
    request = service.ExportProfilesServiceRequest()
    of_source = request.resource_profiles.add()
    resource = {
        "service.name": source.name,
        "service.instance.id": f"{source.host}-{source.worker}",
        "host.name": source.host,
        "process.runtime.name": "cpython",
    }
    for key, value in resource.items():
        of_source.resource.attributes.add(key=key).value.string_value = value
    of_source.resource.attributes.add(key="process.pid").value.int_value = source.pid
    of_scope = of_source.scope_profiles.add()
    of_scope.scope.name, of_scope.scope.version = "highwater-diagnostics", __version__
    tables = _Tables(request.dictionary, profiles)
    rate = rate_of(profile)
    for at, kind in enumerate(profile.sample_types):
        out = of_scope.profiles.add()
        tables.value_type(out.sample_type, kind.name, kind.unit)
        out.time_unix_nano = round(Fraction(profile.time) * _SECOND)
        out.duration_nano = round(Fraction(profile.duration) * _SECOND)
        if rate is not None:
            # As in Go's heap profiles: a sample is taken each so many bytes of allocated space.
            tables.value_type(out.period_type, "space", "bytes")
            out.period = round(rate)
        for (stack, labels), total in _sums(profile, at).items():
            out.samples.add(
                stack_index=tables.stack(stack),
                attribute_indices=[tables.attribute(*label) for label in labels],
                values=[total],
            )
    return request


def _sums(profile: Profile, at: int) -> dict[tuple[tuple[Frame, ...], tuple[tuple[str, str], ...]], int]:
    """The value with this index for each stack and its labels: they are what tells one OTLP sample from another."""
    sums: dict[tuple[tuple[Frame, ...], tuple[tuple[str, str], ...]], int] = {}
    for sample in profile.samples:
        if sample.values[at]:
            identity = sample.stack, sample.labels
            sums[identity] = sums.get(identity, 0) + sample.values[at]
    return sums


class _Tables:
    """The dictionary of a request, filled as its entries are named. An index is that of an entry in its table."""

    def __init__(self, dictionary: Any, profiles: Any) -> None:
        self._dictionary = dictionary
        for table in ("mapping", "location", "function", "attribute", "stack"):
            getattr(dictionary, f"{table}_table").add()
        # All zeros as well, for readers that expect 16 and 8 bytes.
        dictionary.link_table.add(trace_id=bytes(16), span_id=bytes(8))
        dictionary.string_table.append("")
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {("", ""): 0}
        self._locations: dict[Frame, int] = {}
        self._attributes: dict[tuple[str, str], int] = {}
        self._stacks: dict[tuple[Frame, ...], int] = {(): 0}

    def value_type(self, out: Any, name: str, unit: str) -> None:
        out.type_strindex, out.unit_strindex = self.string(name), self.string(unit)

    def string(self, text: str) -> int:
        index = self._strings.get(text)
        if index is None:
            index = self._strings[text] = len(self._dictionary.string_table)
            # Paths that are not UTF-8 reach Python as lone surrogates.
            self._dictionary.string_table.append(text.encode("utf-8", "backslashreplace").decode())
        return index

    def attribute(self, key: str, value: str) -> int:
        index = self._attributes.get((key, value))
        if index is None:
            index = self._attributes[key, value] = len(self._dictionary.attribute_table)
            self._dictionary.attribute_table.add(key_strindex=self.string(key)).value.string_value = value
        return index

    def stack(self, frames: tuple[Frame, ...]) -> int:
        index = self._stacks.get(frames)
        if index is None:
            index = self._stacks[frames] = len(self._dictionary.stack_table)
            locations = [self._location(frame) for frame in frames]
            self._dictionary.stack_table.add(location_indices=locations)
        return index

    def _location(self, frame: Frame) -> int:
        index = self._locations.get(frame)
        if index is None:
            index = self._locations[frame] = len(self._dictionary.location_table)
            python = self.attribute("profile.frame.type", "cpython")
            location = self._dictionary.location_table.add(attribute_indices=[python])
            location.lines.add(function_index=self._function(frame.function, frame.file), line=frame.line)
        return index

    def _function(self, name: str, file: str) -> int:
        index = self._functions.get((name, file))
        if index is None:
            index = self._functions[name, file] = len(self._dictionary.function_table)
            self._dictionary.function_table.add(name_strindex=self.string(name), filename_strindex=self.string(file))
        return index
