"""The protobuf wire format, as far as profile.proto needs it.

A message is a run of fields; a field is a tag (number and wire type, a varint) and a value: a varint (0), eight bytes
(1), a length and that many bytes (2), or four bytes (5). Repeated numbers come packed into one field of type 2, or one
field each: a reader must take both. Source: https://protobuf.dev/programming-guides/encoding/.

Reading keeps to the bytes it is given: a length beyond the end, a varint of more than ten bytes or an unknown wire type
is a WireError that names the offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["Message", "WireError", "fields", "numbers", "signed"]

_MASK = (1 << 64) - 1


class WireError(ValueError):
    """These bytes are not a protobuf message."""


class Message:
    """Collects fields; `bytes(message)` is the encoded message."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def number(self, field: int, value: int) -> None:
        """Add a varint field, a negative number as 64-bit two's complement. 0, proto3's default, is not written."""
        if value:
            _varint(self._out, field << 3)
            _varint(self._out, value & _MASK)

    def packed(self, field: int, values: Iterable[int]) -> None:
        """Add a packed repeated number field; not written where there are no values."""
        body = bytearray()
        for value in values:
            _varint(body, value & _MASK)
        if body:
            self.data(field, body)

    def data(self, field: int, value: bytes | bytearray | Message) -> None:
        """Add a field of bytes, UTF-8 text or a message; written even where it is empty, as repeated fields need."""
        body = bytes(value) if isinstance(value, Message) else value
        _varint(self._out, field << 3 | 2)
        _varint(self._out, len(body))
        self._out += body

    def __bytes__(self) -> bytes:
        return bytes(self._out)


def _varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in their order: number, and an unsigned int or bytes. Raises WireError."""
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = _read_varint(data, at)
        kind, number = tag & 7, tag >> 3
        if number == 0:
            raise WireError(f"field number 0 at byte {start}")
        if kind == 0:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _read_varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise WireError(f"wire type {kind} at byte {start}")
        if length > end - at:
            raise WireError(f"field {number} at byte {start} is {length} bytes long, {end - at} are left")
        body = data[at : at + length]
        at += length
        yield number, body if kind == 2 else int.from_bytes(body, "little")


def numbers(value: int | bytes, limit: int) -> list[int]:
    """A repeated number field, packed or not. Raises WireError where there are more than `limit`."""
    if isinstance(value, int):
        return [value]
    if value.isascii():  # no byte has its top bit set: each is a complete varint
        if len(value) > limit:
            raise WireError(f"{len(value)} numbers in one field, the limit is {limit}")
        return list(value)
    decoded, at = [], 0
    while at < len(value):
        number, at = _read_varint(value, at)
        decoded.append(number)
        if len(decoded) > limit:
            raise WireError(f"more than {limit} numbers in one field")
    return decoded


def signed(value: int) -> int:
    """A varint read as int64."""
    return value - (1 << 64) if value >> 63 else value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError(f"cut off at byte {at}, within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
    raise WireError(f"a number of more than ten bytes at byte {at - 10}")
