"""The recorder's file: readings of one worker in a fixed number of bytes, readable whatever killed whom while it was written.

    header   4096 bytes: magic, version, length and CRC-32 of a JSON text, the text: fields with their units, the rings'
             sizes, which process this is; the rest is zero
    end      4096 bytes: length and CRC-32 of a JSON text that is written once, when the worker has ended; zero before
    rings    one after the other: slots of one size, each empty (zero) or a record

A record is a CRC-32, a number that counts from 1, and one little-endian double a field (NaN: not known). Number n stands in
slot n modulo the capacity. The CRC covers the slot's place and the header's CRC as well: a record that was moved,
or belongs to another file, is as wrong as one with a flipped bit.

The law of this file: what reads it trusts nothing. A header that does not check is a UsageError; a record that does not
check is left out and counted; nothing else is raised, and no wrong record is shown.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError

__all__ = [
    "FORMAT_VERSION",
    "MAX_CAPACITY",
    "MAX_FILE_BYTES",
    "Header",
    "Recording",
    "Ring",
    "RingFile",
    "RingSize",
    "decode",
    "peek",
]

FORMAT_VERSION = 1

_MAGIC = b"highwater ring\n\0"
_PREFIX = struct.Struct("<16sHIIxx")  # magic, version, length, CRC-32 of the text
_END_PREFIX = struct.Struct("<II")  # length, CRC-32 of the text
_RECORD_PREFIX = struct.Struct("<IQ")  # CRC-32 of all that follows it, number
_HEADER_BYTES = 4096
_END_BYTES = 4096
# A day of seconds: far more than anyone keeps, far less than what would not fit into memory.
MAX_CAPACITY = 86_400
MAX_INTERVAL = 86_400.0
MAX_FIELDS = 200
MAX_RINGS = 4
# Four of the largest rings with as many fields as there may be.
MAX_FILE_BYTES = _HEADER_BYTES + _END_BYTES + MAX_RINGS * MAX_CAPACITY * (_RECORD_PREFIX.size + 8 * MAX_FIELDS)


@dataclass(frozen=True, slots=True)
class RingSize:
    """`capacity` records, one every `interval` seconds."""

    interval: float
    capacity: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself.

    fields   (name, unit) in the order of a record's numbers; the first is time, in seconds since the epoch
    process  which process this is: JSON with "pid", "started", "boot_id", "start_ticks", "worker"
    """

    fields: tuple[tuple[str, str], ...]
    rings: tuple[RingSize, ...]
    process: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "fields": [list(field) for field in self.fields],
            "rings": [[ring.interval, ring.capacity] for ring in self.rings],
            "process": self.process,
        }

    @property
    def record(self) -> struct.Struct:
        """The numbers of one record, without CRC and number."""
        return struct.Struct(f"<{len(self.fields)}d")

    @property
    def slot_bytes(self) -> int:
        return _RECORD_PREFIX.size + self.record.size

    @property
    def file_bytes(self) -> int:
        return _HEADER_BYTES + _END_BYTES + self.slot_bytes * sum(ring.capacity for ring in self.rings)


@dataclass(frozen=True, slots=True)
class Ring:
    """What one ring holds. `records` are in their order; each has a number for every field.

    bad    slots that hold something that is no record
    lost   records that must have been there between those found, and are not
    """

    size: RingSize
    records: tuple[tuple[float, ...], ...]
    bad: int
    lost: int


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole file. `end` is None while the worker runs, and where nobody was left to write it."""

    header: Header
    rings: tuple[Ring, ...]
    end: dict[str, Any] | None
    end_damaged: bool


class RingFile:
    """A recording that is being written: a mapped file, or memory alone where the disk has no room.

    What is written is in the kernel's hands at once: it survives the death of this process, not that of the machine.
    """

    def __init__(self, memory: mmap.mmap, header: Header, seed: int, path: Path | None) -> None:
        self.header = header
        self.path = path
        self._memory = memory
        self._seed = seed
        self._numbers = [_last_number(memory, header, seed, index) for index in range(len(header.rings))]

    @classmethod
    def create(cls, path: Path, header: Header) -> RingFile:
        """A new file, whole on the disk before anything is in it. Raises OSError (no room, no right)."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # A mapped page that the disk has no room for would kill the monitor with SIGBUS.
            os.posix_fallocate(descriptor, 0, header.file_bytes)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            memory = mmap.mmap(descriptor, header.file_bytes)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        return cls(memory, header, _write_header(memory, header), path)

    @classmethod
    def reopen(cls, path: Path) -> RingFile:
        """Go on with a file that another monitor began. Raises UsageError where it is damaged or cut short, OSError
        (BlockingIOError where another monitor writes it now)."""
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by the mapping's own descriptor until it closes
            header, seed = _read_header(file.read(_HEADER_BYTES))
            size = os.fstat(file.fileno()).st_size
            if size != header.file_bytes:
                raise UsageError(f"{path} has {size} bytes, its header says {header.file_bytes}", remedy="remove it")
            return cls(mmap.mmap(file.fileno(), size), header, seed, path)

    @classmethod
    def in_memory(cls, header: Header) -> RingFile:
        memory = mmap.mmap(-1, header.file_bytes)
        return cls(memory, header, _write_header(memory, header), None)

    def append(self, ring: int, values: Sequence[float]) -> None:
        """Write the next record of this ring over its oldest one."""
        number = self._numbers[ring] + 1
        start = _slot_start(self.header, ring, number % self.header.rings[ring].capacity)
        body = struct.pack("<Q", number) + self.header.record.pack(*values)
        slot = struct.pack("<I", _record_crc(self._seed, start, body)) + body
        self._memory[start : start + len(slot)] = slot
        self._numbers[ring] = number

    def write_end(self, end: dict[str, Any]) -> None:
        """Say how the worker ended. What does not fit into 4 KiB of JSON is an error of the caller."""
        text = json.dumps(end, separators=(",", ":")).encode()
        if len(text) > _END_BYTES - _END_PREFIX.size:
            raise ValueError(f"the end takes {len(text)} bytes")
        place = self._memory
        place[_HEADER_BYTES + _END_PREFIX.size : _HEADER_BYTES + _END_PREFIX.size + len(text)] = text
        place[_HEADER_BYTES : _HEADER_BYTES + _END_PREFIX.size] = _END_PREFIX.pack(
            len(text), zlib.crc32(text, self._seed)
        )

    def read(self) -> Recording:
        return decode(bytes(self._memory))

    def columns(self, ring: int, names: Sequence[str]) -> dict[str, list[float]]:
        """The fields of these names, of all records of a ring in their order. Unchecked, and so five times as fast as
        `read`: for who has written the file. Raises ValueError for a name that is no field's."""
        header, last = self.header, self._numbers[ring]
        capacity = header.rings[ring].capacity
        places = sorted((_place(header, name), name) for name in names)
        wanted = {place for place, _ in places}
        row = struct.Struct(
            f"<{_RECORD_PREFIX.size}x" + "".join("d" if at in wanted else "8x" for at in range(len(header.fields)))
        )
        start, size = _slot_start(header, ring, 0), header.slot_bytes
        rows = list(row.iter_unpack(self._memory[start : start + size * min(last + 1, capacity)]))
        oldest = (last + 1) % capacity if last >= capacity else 1  # number n is in slot n: slot 0 is filled last
        rows = rows[oldest:] + (rows[:oldest] if last >= capacity else [])
        by_field = zip(*rows, strict=True) if rows else iter([()] * len(places))
        return {name: list(column) for (_, name), column in zip(places, by_field, strict=True)}

    def close(self) -> None:
        self._memory.close()


def decode(data: bytes) -> Recording:
    """Read a file's bytes, damaged or cut short as they may be. Raises UsageError where the header does not check."""
    header, seed = _read_header(data[:_HEADER_BYTES])
    end, end_damaged = _read_end(data[_HEADER_BYTES : _HEADER_BYTES + _END_BYTES], seed)
    rings = tuple(_read_ring(data, header, seed, index) for index in range(len(header.rings)))
    return Recording(header, rings, end, end_damaged)


def peek(path: Path) -> tuple[Header, dict[str, Any] | None]:
    """A file's header and end, without its readings. Raises UsageError where the header does not check, OSError."""
    with open(path, "rb") as file:
        data = file.read(_HEADER_BYTES + _END_BYTES)
    header, seed = _read_header(data[:_HEADER_BYTES])
    return header, _read_end(data[_HEADER_BYTES:], seed)[0]


def _write_header(memory: mmap.mmap, header: Header) -> int:
    text = json.dumps(header.to_json(), separators=(",", ":")).encode()
    if len(text) > _HEADER_BYTES - _PREFIX.size:
        raise ValueError(f"the header takes {len(text)} bytes")
    crc = zlib.crc32(text)
    memory[: _PREFIX.size + len(text)] = _PREFIX.pack(_MAGIC, FORMAT_VERSION, len(text), crc) + text
    return crc


def _read_header(data: bytes) -> tuple[Header, int]:
    if len(data) < _PREFIX.size or not data.startswith(_MAGIC):
        raise UsageError("this is no recording of Highwater's", remedy="give a file of DIR/blackbox/*.ring")
    _, version, length, crc = _PREFIX.unpack_from(data)
    if version != FORMAT_VERSION:
        raise UsageError(
            f"this recording has format version {version}, this program reads {FORMAT_VERSION}",
            remedy="read it with the version of highwater-diagnostics that wrote it",
        )
    text = data[_PREFIX.size : _PREFIX.size + length]
    if len(text) != length or zlib.crc32(text) != crc:
        raise UsageError("the recording's header is damaged: its checksum is wrong", remedy="take an undamaged copy")
    return _checked_header(text), crc


def _checked_header(text: bytes) -> Header:
    """The header in a text whose checksum is right: still someone else's word."""
    try:
        loaded = json.loads(text)
        fields = tuple((str(name), str(unit)) for name, unit in loaded["fields"])
        rings = tuple(RingSize(float(interval), int(capacity)) for interval, capacity in loaded["rings"])
        process = dict(loaded["process"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UsageError(f"the recording's header is not as this version writes it: {error!r}") from error
    sizes_fit = all(1 <= ring.capacity <= MAX_CAPACITY and 0 < ring.interval <= MAX_INTERVAL for ring in rings)
    if not (1 <= len(rings) <= MAX_RINGS and sizes_fit and 1 <= len(fields) <= MAX_FIELDS and fields[0][0] == "time"):
        raise UsageError("the recording's header names sizes or fields that no recording has")
    return Header(fields, rings, process)


def _read_end(data: bytes, seed: int) -> tuple[dict[str, Any] | None, bool]:
    """(what it says, whether it is damaged)."""
    if not any(data):
        return None, len(data) < _END_BYTES
    if len(data) < _END_PREFIX.size:
        return None, True
    length, crc = _END_PREFIX.unpack_from(data)
    text = data[_END_PREFIX.size : _END_PREFIX.size + length]
    if len(text) != length or zlib.crc32(text, seed) != crc:
        return None, True
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None, True
    return (said, False) if isinstance(said, dict) else (None, True)


def _read_ring(data: bytes, header: Header, seed: int, ring: int) -> Ring:
    records: list[tuple[int, tuple[float, ...]]] = []
    bad = 0
    for number, values in _slots(data, header, seed, ring):
        if number is None:
            bad += 1
        elif number:
            records.append((number, values))
    records.sort()
    size = header.rings[ring]
    lost = records[-1][0] - max(1, records[-1][0] - size.capacity + 1) + 1 - len(records) if records else 0
    return Ring(size, tuple(values for _, values in records), bad, max(0, lost - bad))


def _slots(
    data: bytes | mmap.mmap, header: Header, seed: int, ring: int
) -> Iterator[tuple[int | None, tuple[float, ...]]]:
    """Each slot's number and values; number 0 for an empty one, None for one that is no record or was cut off."""
    size, record, first = header.slot_bytes, header.record, _slot_start(header, ring, 0)
    empty = bytes(size)
    for index in range(header.rings[ring].capacity):
        start = first + index * size
        slot = data[start : start + size]
        if slot == empty:
            yield 0, ()
            continue
        if len(slot) == size:
            crc, number = _RECORD_PREFIX.unpack_from(slot)
            fits = number > 0 and number % header.rings[ring].capacity == index
            if fits and _record_crc(seed, start, slot[4:]) == crc:
                values = record.unpack_from(slot, _RECORD_PREFIX.size)
                if math.isfinite(values[0]):
                    yield number, values
                    continue
        yield None, ()


def _last_number(memory: mmap.mmap, header: Header, seed: int, ring: int) -> int:
    return max((number or 0 for number, _ in _slots(memory, header, seed, ring)), default=0)


def _place(header: Header, name: str) -> int:
    """Where a field stands in a record. Raises ValueError."""
    for place, (field, _) in enumerate(header.fields):
        if field == name:
            return place
    raise ValueError(f"no record has a field {name!r}")


def _slot_start(header: Header, ring: int, index: int) -> int:
    before = sum(size.capacity for size in header.rings[:ring])
    return _HEADER_BYTES + _END_BYTES + (before + index) * header.slot_bytes


def _record_crc(seed: int, start: int, body: bytes) -> int:
    """Of a record's number and values, its place in the file, and the header's own checksum."""
    return zlib.crc32(body, zlib.crc32(struct.pack("<Q", start), seed))
