"""Inputs at random, for the checks: made of the pieces that the parsers look for, and damaged.

What is made of pieces reaches at once what bytes that change one by one reach seldom, and a check without the instruments that
guide atheris is faster. Both are run: one for what nobody thought of, the other for the combinations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["GENERATORS"]

# No input is longer, about: a check reads it in pieces of 1 to 16 bytes.
MOST_PIECES = 24
LINE_ENDS = (b"\n", b"\r", b"\r\n")
FIELDS = (b"data", b"event", b"id", b"retry", b"", b"dat", b"Data", b"\xef\xbb\xbfdata")
AFTER_FIELDS = (b":", b": ", b":  ", b"", b" :")
VALUES = (
    *(
        b"",
        b"x",
        b"[DONE]",
        b"[DONE]x",
        b" [DONE]",
        b"[DON",
        b"\0",
        b":",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xe2\x82",
        b"naiv\xc3\xaf",
        b"{}",
    ),
    *(
        b'{"id":"a","model":"b","choices":[{"delta":{"content":"x"}}]}',
        b'{"usage":{"completion_tokens":1}}',
        b'{"error":',
        b"\t",
    ),
)
NAMES = (
    b"content-length",
    b"Content-Length",
    b"transfer-encoding",
    b"connection",
    b"x-a",
    b"x a",
    b"",
    b"\xe4",
    b"content-type",
)
HEADER_VALUES = (
    *(
        b"",
        b"0",
        b"1",
        b"5",
        b"05",
        b"+5",
        b"5, 5",
        b"5,6",
        b"99999999999999999999",
        b"-1",
        b"chunked",
        b"Chunked",
        b"gzip, chunked",
    ),
    *(b"chunked, chunked", b"identity", b"close", b"keep-alive", b"a\tb", b"a\0b", b"text/event-stream", b"\xe4"),
)
STATUSES = (b"200", b"204", b"304", b"100", b"103", b"101", b"99", b"600", b"999", b"2", b"20x", b"503", b"")
REASONS = (b" OK", b" ", b"", b" \xe4", b" a b")
SIZES = (b"0", b"1", b"5", b"a", b"A", b"05", b"5;x=y", b"5 ", b"fffffffffffffffff", b"", b"-1", b"0x1", b"5;\n")


def stream(chance: random.Random) -> bytes:
    """Lines of an event stream, most of them right."""
    ends = chance.choice((LINE_ENDS[:1], LINE_ENDS[:1], LINE_ENDS[2:], LINE_ENDS))
    out = [b"\xef\xbb\xbf"] if chance.random() < 0.1 else []
    for _ in range(chance.randrange(MOST_PIECES)):
        if chance.random() < 0.35:
            out.append(chance.choice(ends))
            continue
        out += (
            chance.choice(FIELDS[: chance.choice((1, 1, 4, len(FIELDS)))]),
            chance.choice(AFTER_FIELDS),
            chance.choice(VALUES),
        )
        if chance.random() < 0.97:
            out.append(chance.choice(ends))
    return b"".join(out)


def answer(chance: random.Random) -> bytes:
    """An answer of a server, or several, most of whose parts are right."""
    return b"".join(_answer(chance) for _ in range(chance.choice((1, 1, 1, 2, 3))))


def _answer(chance: random.Random) -> bytes:
    end = b"\r\n" if chance.random() < 0.9 else chance.choice((b"\n", b"\r"))
    version = b"HTTP/1.1" if chance.random() < 0.9 else chance.choice((b"HTTP/1.0", b"HTTP/2", b"http/1.1"))
    out = [
        version,
        b" ",
        chance.choice(STATUSES[: chance.choice((1, 1, 5, len(STATUSES)))]),
        chance.choice(REASONS),
        end,
    ]
    for _ in range(chance.randrange(4)):
        if chance.random() < 0.7:
            out += (
                chance.choice((b"x-a: 1", b"Content-Type: text/event-stream", b"retry-after:2", b"connection: close")),
                end,
            )
        else:
            out += (chance.choice(NAMES), chance.choice((b":", b": ", b" : ")), chance.choice(HEADER_VALUES), end)
    body = bytes(chance.choices(b"ab\r\n", k=chance.randrange(12)))
    match chance.randrange(4):
        case 0:
            out += (b"content-length: %d" % (len(body) + chance.choice((0, 0, 0, 1, -1))), end, end, body)
        case 1:
            out += (b"transfer-encoding: chunked", end, end)
            for _ in range(chance.randrange(4)):
                size = b"%x" % len(body) if chance.random() < 0.8 else chance.choice(SIZES)
                out += (size, end, body, end)
            out += (b"0", end, chance.choice((b"", b"x-t: y" + end)), end) if chance.random() < 0.8 else ()
        case _:
            out += (end, body)
    return b"".join(out)


def damaged(chance: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Some bytes taken out, put in, changed, or taken over from another input."""
    out = bytearray(data)
    for _ in range(chance.randrange(4)):
        at = chance.randint(0, len(out))
        other = chance.choice(others) if others else b""
        begin = chance.randint(0, len(other))
        new = (b"", chance.randbytes(chance.randrange(3)), other[begin : begin + chance.randrange(24)])[
            chance.randrange(3)
        ]
        out[at : at + chance.choice((0, 0, 1, 2, 9))] = new
    return bytes(out)


def _of(make: Callable[[random.Random], bytes]) -> Callable[[random.Random, Sequence[bytes]], bytes]:
    def input_of(chance: random.Random, others: Sequence[bytes]) -> bytes:
        """The first byte says how the rest is cut (sse.check, http.check)."""
        data = make(chance) if chance.random() < 0.9 or not others else chance.choice(others)[1:]
        return bytes([chance.randrange(256)]) + (data if chance.random() < 0.5 else damaged(chance, data, others))

    return input_of


# By target, an input from chance, and from others that are kept.
GENERATORS: dict[str, Callable[[random.Random, Sequence[bytes]], bytes]] = {"sse": _of(stream), "http": _of(answer)}
