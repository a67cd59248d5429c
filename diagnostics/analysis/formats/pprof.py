"""pprof's profile.proto, as `go tool pprof`, Speedscope, Pyroscope and Parca read it.

Source: https://github.com/google/pprof/blob/main/proto/profile.proto. Every text is an index into one string table,
every stack a list of location ids, leaf first. The same Profile always gives the same bytes.

Fields of a Profile that profile.proto lacks go into its comments, one each: `kind: ...`, `not covered: ...`,
`meta: {JSON}`; `go tool pprof -comments` shows them. Comments of other tools are kept in `meta["comments"]`.

Files to read are untrusted: the limits below bound their cost in time and memory, and every defect is a UsageError.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ...errors import UsageError
from ..profile import Frame, Profile, Sample, ValueType
from ..sampling import rate_of
from .protobuf import Message, WireError, fields, numbers, signed

__all__ = ["GZIP_MAGIC", "decode", "encode", "inflate"]

GZIP_MAGIC = b"\x1f\x8b"

# A capture of 100,000 stacks, 25 deep, is about 15 MiB before compression.
MAX_BYTES = 128 * 1024 * 1024
# Profiles compress twenty to fifty to one, gzip at best a thousand to one: a higher ratio is an attack on the reader.
MAX_RATIO = 200
SMALL_BYTES = 4 * 1024 * 1024
# A gzip file may have several members, and the rest is copied for each: a million empty ones would take days.
MAX_MEMBERS = 64
# Top-level fields: samples, locations, functions, strings, ... one Python object each.
MAX_FIELDS = 2_000_000
# Frames in all stacks together: a million references to a location with a thousand inlined lines would fill any memory.
MAX_FRAMES = 20_000_000
MAX_DEPTH = 16_384
MAX_INLINED = 1_024
MAX_TYPES = 64
MAX_LABELS = 64

_INT64 = 1 << 63
_SECOND = (
    1_000_000_000  # nanoseconds. An integer: dividing by it gives the nearest float, which dividing by 1e9 may not
)


def encode(profile: Profile, *, compress: bool = True) -> bytes:
    """The profile as profile.proto, in gzip with no time in its header. Raises UsageError for a value beyond int64."""
    body = bytes(_Encoder(profile).message())
    if not compress:
        return body
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


class _Encoder:
    """Encodes one profile; strings, functions and locations are collected while the samples are written."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._strings: dict[str, int] = {"": 0}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[Frame, int] = {}

    def message(self) -> Message:
        profile = self._profile
        out = Message()
        for kind in profile.sample_types:
            out.data(1, self._value_type(kind))
        for sample in profile.samples:
            out.data(2, self._sample(sample))
        if self._locations:
            # One mapping that says that symbols are resolved: pprof then searches for no binary.
            mapping = Message()
            for field in (1, 7, 8, 9):  # id, has_functions, has_filenames, has_line_numbers
                mapping.number(field, 1)
            out.data(3, mapping)
        for frame, number in self._locations.items():
            out.data(4, self._location(frame, number))
        for (name, file), number in self._functions.items():
            out.data(5, self._function(name, file, number))
        comments = [self._string(text) for text in _comments(profile)]
        # Of a sampled heap as in Go's: one sample each so many bytes of space. It is part of the type's name in Pyroscope.
        period_type = self._value_type(ValueType("space", "bytes")) if rate_of(profile) is not None else None
        default_type = self._string(profile.sample_types[0].name) if profile.sample_types else 0
        for text in self._strings:
            # Paths that are not UTF-8 reach Python as lone surrogates.
            out.data(6, text.encode("utf-8", "backslashreplace"))
        out.number(9, _int64(_nanoseconds(profile.time), "time"))
        out.number(10, _int64(_nanoseconds(profile.duration), "duration"))
        if period_type is not None:
            out.data(11, period_type)
            out.number(12, round(rate_of(profile) or 0))
        out.packed(13, comments)
        out.number(14, default_type)
        return out

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _value_type(self, kind: ValueType) -> Message:
        out = Message()
        out.number(1, self._string(kind.name))
        out.number(2, self._string(kind.unit))
        return out

    def _sample(self, sample: Sample) -> Message:
        out = Message()
        locations = self._locations
        out.packed(1, [locations.setdefault(frame, len(locations) + 1) for frame in sample.stack])
        out.packed(2, [_int64(value, "value") for value in sample.values])
        for key, value in sample.labels:
            label = Message()
            label.number(1, self._string(key))
            label.number(2, self._string(value))
            out.data(3, label)
        return out

    def _location(self, frame: Frame, number: int) -> Message:
        function = self._functions.setdefault((frame.function, frame.file), len(self._functions) + 1)
        line = Message()
        line.number(1, function)
        line.number(2, _int64(frame.line, "line"))
        out = Message()
        out.number(1, number)
        out.number(2, 1)
        out.data(4, line)
        return out

    def _function(self, name: str, file: str, number: int) -> Message:
        out = Message()
        out.number(1, number)
        out.number(2, self._string(name))
        # No system_name: where both are the same, pprof takes the name for C++ and turns `<module>` into `<unknown>`.
        out.number(4, self._string(file))
        return out


def _nanoseconds(seconds: float) -> int:
    """Exact before it is rounded: a product of floats is off by up to 64 ns for the times of today."""
    return round(Fraction(seconds) * _SECOND)


def _int64(value: int, what: str) -> int:
    if not -_INT64 <= value < _INT64:
        raise UsageError(f"a {what} of {value} does not fit into pprof's 64 bits", remedy="write it as JSON")
    return value


def _comments(profile: Profile) -> list[str]:
    texts = [f"kind: {profile.kind}", *(f"not covered: {note}" for note in profile.not_covered)]
    if profile.meta:
        texts.append("meta: " + json.dumps(dict(profile.meta), sort_keys=True))
    return texts


def inflate(data: bytes) -> bytes:
    """`data` decompressed if it is gzip, else unchanged. Raises UsageError where it is truncated, too large, or gzip again."""
    if not data.startswith(GZIP_MAGIC):
        return data
    out, packed = bytearray(), data
    limit = min(MAX_BYTES, max(SMALL_BYTES, MAX_RATIO * len(data)))
    for _ in range(MAX_MEMBERS):
        if not data.startswith(GZIP_MAGIC):
            break
        unpacker = zlib.decompressobj(31)
        try:
            out += unpacker.decompress(data, limit + 1 - len(out))
        except zlib.error as error:
            raise UsageError(f"damaged gzip data: {error}", remedy="copy or download the file again") from error
        if len(out) > limit:
            why = f"more than {limit} bytes when decompressed"
            if limit < MAX_BYTES:
                raise UsageError(
                    f"{why}, of {len(packed)}: no profile is packed so tightly", remedy="unpack it with gunzip"
                )
            raise UsageError(why, remedy="take a shorter capture")
        if not unpacker.eof:
            raise UsageError("gzip data that is cut off", remedy="copy or download the file again")
        data = unpacker.unused_data
    else:
        raise UsageError(f"{MAX_MEMBERS} gzip files or more in one", remedy="unpack it with gunzip")
    if out.startswith(GZIP_MAGIC):
        raise UsageError("gzip within gzip", remedy="unpack it once with gunzip")
    return bytes(out)


def decode(data: bytes) -> Profile:
    """Read a profile.proto, gzipped or not. Raises UsageError that names the defect."""
    body = inflate(data)
    if not body:
        raise UsageError("an empty file is not a pprof profile")
    if len(body) > MAX_BYTES:
        raise UsageError(
            f"a pprof profile of {len(body)} bytes, the limit is {MAX_BYTES}", remedy="take a shorter capture"
        )
    try:
        return _Decoder(body).profile()
    except WireError as error:
        raise UsageError(f"not a pprof profile, or a damaged one: {error}") from error


class _Decoder:
    """Decodes one message: splits all fields first, since the string table is last in a file and all others need it."""

    def __init__(self, body: bytes) -> None:
        self._parts: dict[int, list[int | bytes]] = defaultdict(list)
        for count, (number, value) in enumerate(fields(body)):
            if count >= MAX_FIELDS:
                raise WireError(f"more than {MAX_FIELDS} fields")
            self._parts[number].append(value)
        self._strings = [text.decode("utf-8", "replace") for text in self._messages(6)]
        if not self._strings or self._strings[0]:
            raise WireError("its string table does not begin with the empty string")
        self._frames_left = MAX_FRAMES

    def profile(self) -> Profile:
        types = tuple(self._value_type(part) for part in self._messages(1))
        if not 1 <= len(types) <= MAX_TYPES:
            raise WireError(f"it has {len(types)} sample types, expected 1 to {MAX_TYPES}")
        locations = self._locations(self._functions(), self._mappings())
        samples = tuple(self._sample(part, locations, len(types)) for part in self._messages(2))
        comments = [self._string(n) for part in self._parts[13] for n in numbers(part, MAX_FIELDS)]
        kind, not_covered, meta = _read_comments(comments)
        return Profile(
            kind=kind,
            sample_types=types,
            samples=samples,
            time=self._last(9) / _SECOND,
            duration=self._last(10) / _SECOND,
            not_covered=not_covered,
            meta=meta,
        )

    def _messages(self, field: int) -> list[bytes]:
        parts = self._parts[field]
        return [part if isinstance(part, bytes) else _not_bytes(field) for part in parts]

    def _last(self, field: int) -> int:
        return _number({field: self._parts[field][-1]}, field, sign=True) if self._parts[field] else 0

    def _string(self, index: int) -> str:
        if index >= len(self._strings):
            raise WireError(f"it names string {index} of {len(self._strings)}")
        return self._strings[index]

    def _value_type(self, part: bytes) -> ValueType:
        row = dict(fields(part))
        return ValueType(self._string(_number(row, 1)), self._string(_number(row, 2)))

    def _mappings(self) -> dict[int, str]:
        rows = (dict(fields(part)) for part in self._messages(3))
        return {_number(row, 1): self._string(_number(row, 5)) for row in rows}

    def _functions(self) -> dict[int, tuple[str, str]]:
        functions = {}
        for part in self._messages(5):
            row = dict(fields(part))
            name = self._string(_number(row, 2)) or self._string(_number(row, 3))
            functions[_number(row, 1)] = (name, self._string(_number(row, 4)))
        return functions

    def _locations(
        self, functions: Mapping[int, tuple[str, str]], mappings: Mapping[int, str]
    ) -> dict[int, tuple[Frame, ...]]:
        locations = {}
        for part in self._messages(4):
            row: dict[int, int | bytes] = {}
            frames: list[Frame] = []
            for number, value in fields(part):
                if number != 4:
                    row[number] = value
                    continue
                line = dict(fields(value if isinstance(value, bytes) else _not_bytes(4)))
                function = _number(line, 1)
                if function not in functions:
                    raise WireError(f"it names function {function}, which it does not have")
                frames.append(Frame(*functions[function], max(0, _number(line, 2, sign=True))))
                if len(frames) > MAX_INLINED:
                    raise WireError(f"a location has more than {MAX_INLINED} lines")
            if not frames:  # not symbolized: it has an address only
                frames.append(Frame(f"{_number(row, 3):#x}", mappings.get(_number(row, 2), ""), 0))
            locations[_number(row, 1)] = tuple(frames)
        return locations

    def _sample(self, part: bytes, locations: Mapping[int, tuple[Frame, ...]], width: int) -> Sample:
        stack: list[Frame] = []
        values: list[int] = []
        labels: dict[str, str] = {}
        for number, value in fields(part):
            if number == 1:
                for location in numbers(value, MAX_DEPTH):
                    if location not in locations:
                        raise WireError(f"it names location {location}, which it does not have")
                    stack.extend(locations[location])
                    if len(stack) > MAX_DEPTH:
                        raise WireError(f"a stack of more than {MAX_DEPTH} frames")
            elif number == 2:
                values.extend(map(signed, numbers(value, MAX_TYPES)))
            elif number == 3:
                key, text = self._label(value if isinstance(value, bytes) else _not_bytes(3))
                # pprof allows several values for a key.
                labels[key] = f"{labels[key]},{text}" if key in labels else text
            if len(values) > width or len(labels) > MAX_LABELS:
                raise WireError(f"a sample with more than {width} values or {MAX_LABELS} labels")
        if len(values) != width:
            raise WireError(f"a sample has {len(values)} values, the profile has {width} sample types")
        self._frames_left -= len(stack)
        if self._frames_left < 0:
            raise WireError(f"more than {MAX_FRAMES} frames in all stacks together")
        return Sample(tuple(stack), tuple(values), tuple(sorted(labels.items())))

    def _label(self, part: bytes) -> tuple[str, str]:
        row = dict(fields(part))
        key, text = self._string(_number(row, 1)), self._string(_number(row, 2))
        if not text and (amount := _number(row, 3, sign=True)):
            text = f"{amount} {self._string(_number(row, 4))}".rstrip()
        return key, text


def _number(row: Mapping[int, int | bytes], field: int, *, sign: bool = False) -> int:
    value = row.get(field, 0)
    if isinstance(value, bytes):
        raise WireError(f"field {field} holds bytes where a number belongs")
    return signed(value) if sign else value


def _not_bytes(field: int) -> bytes:
    raise WireError(f"field {field} holds a number where a message belongs")


def _read_comments(comments: list[str]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    kind, meta = "pprof", dict[str, Any]()
    not_covered: list[str] = []
    others: list[str] = []
    for text in comments:
        name, colon, rest = text.partition(": ")
        if name == "kind" and colon:
            kind = rest
        elif name == "not covered" and colon:
            not_covered.append(rest)
        elif name == "meta" and (facts := _json_object(rest)) is not None:
            meta = facts
        else:
            others.append(text)
    return kind, tuple(not_covered), {**meta, "comments": others} if others else meta


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None  # another tool's comment that happens to begin alike: kept as it is
    return value if isinstance(value, dict) else None
