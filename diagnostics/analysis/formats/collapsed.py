"""Folded stacks: one line a stack, `root;caller;leaf 4096`, as flamegraph.pl, inferno and Speedscope read them.

A frame is written `function (file:line)`. The format has no escapes, so characters that would break a line (semicolon, line
breaks and other control characters, and the percent sign itself) are written as %3B, %0A, %25, and decoded again on reading.
It has one sample type, no labels and no times.
"""

from __future__ import annotations

import re

from ...errors import UsageError
from ..profile import Frame, Profile, Sample, ValueType

__all__ = ["NO_STACK", "decode", "encode", "looks_folded"]

# A line must have at least one frame; a sample without a stack is written as this one.
NO_STACK = "(no stack)"
# Each line is a sample; a capture of 100,000 stacks is a large one.
MAX_LINES = 2_000_000

_MAX_DIGITS = 18
_LINE = re.compile(r"(?P<stack>.*\S)\s+(?P<value>-?\d{1,400})")
_UNSAFE = re.compile(r"[%;\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = re.compile(r"%(25|28|3B|[01][0-9A-F]|7F|[89][0-9A-F]|u[0-9A-F]{4})")


def encode(profile: Profile, value: int = 0) -> bytes:
    """The stacks with the sums of the value of this index; stacks with a sum of 0 are left out."""
    sums: dict[tuple[Frame, ...], int] = {}
    for sample in profile.samples:
        sums[sample.stack] = sums.get(sample.stack, 0) + sample.values[value]
    lines = (
        f"{';'.join(_write(frame) for frame in reversed(stack)) or NO_STACK} {amount}\n"
        for stack, amount in sums.items()
        if amount
    )
    return "".join(lines).encode()


def decode(data: bytes, value_type: ValueType | None = None) -> Profile:
    """Read folded stacks. `value_type`: the unit of their values, which the format does not have (default: samples, count).

    Raises UsageError that names the first malformed line.
    """
    samples = []
    text = data.decode("utf-8", "replace")
    if text.count("\n") > MAX_LINES:
        raise UsageError(f"folded stacks of more than {MAX_LINES} lines", remedy="add equal stacks up, or take pprof")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise UsageError(
                f"line {number} is not a folded stack: {line[:80]!r}", remedy="expected `root;caller;leaf NUMBER`"
            )
        names = [] if match["stack"] == NO_STACK else match["stack"].split(";")
        samples.append(Sample(tuple(_read(name) for name in reversed(names)), (int(match["value"]),)))
    return Profile(
        kind="folded",
        sample_types=(value_type or ValueType("samples", "count"),),
        samples=tuple(samples),
        time=0.0,
        duration=0.0,
        not_covered=("when it was taken and what it counts: folded stacks do not say",),
    )


def looks_folded(data: bytes) -> bool:
    """Whether the first non-empty line of `data` is a folded stack."""
    head = data[:65536].lstrip(b"\r\n").split(b"\n", 1)[0]
    try:
        return _LINE.fullmatch(head.decode().rstrip()) is not None
    except UnicodeDecodeError:
        return False


def _write(frame: Frame) -> str:
    text = _UNSAFE.sub(_escape, frame.function)
    # Without the brackets, a function whose name ends like a place, or is blank, would be read back differently.
    if frame.file or frame.line or _placed(text) or text != text.strip() or not text or text == NO_STACK:
        # The last " (" of a frame begins its place.
        file = _UNSAFE.sub(_escape, frame.file).replace(" (", " %28")
        text = f"{text} ({file}:{frame.line})"
    return text


def _read(text: str) -> Frame:
    placed = _placed(text)
    if placed is None:
        return Frame(_ESCAPED.sub(_unescape, text), "", 0)
    function, file, line = placed
    return Frame(_ESCAPED.sub(_unescape, function), _ESCAPED.sub(_unescape, file), line)


def _placed(text: str) -> tuple[str, str, int] | None:
    """Function, file and line of `function (file:line)`; None for any other text. Linear; a regular expression is quadratic."""
    head, colon, line = text[:-1].rpartition(":")
    if not (text.endswith(")") and colon and line.isdecimal() and len(line) <= _MAX_DIGITS):
        return None
    function, place, file = head.rpartition(" (")
    return (function, file, int(line)) if place else None


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"%{code:02X}" if code < 0x100 else f"%u{code:04X}"


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1].removeprefix("u"), 16))
