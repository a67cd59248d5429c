"""What a stream says: every byte follows from its seed, so that client and upstream need not talk about it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

__all__ = ["DONE", "answer", "events", "stream"]

DONE = b"data: [DONE]\n\n"
LETTERS = "abcdefghijklmnopqrstuvwxyz äöü€ 😀"


def events(seed: int, count: int, line_end: bytes = b"\n") -> Iterator[bytes]:
    """The events of a chat, without the end marker: from thirty bytes to a few thousand, now and then one of 100 kB."""
    chance = random.Random(seed)
    for number in range(count):
        size = 100_000 if chance.random() < 0.01 else int(chance.expovariate(1 / 300)) % 5000
        text = "".join(chance.choices(LETTERS, k=16)) * (size // 16 + 1)
        choice = {"index": 0, "delta": {"content": f"{number} {text}"}, "finish_reason": None}
        chunk = {"id": f"chat-{seed}", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
        comment = b": hello" + line_end if chance.random() < 0.05 else b""
        yield comment + b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + line_end * 2


def stream(seed: int, count: int, line_end: bytes = b"\n") -> bytes:
    """A whole stream, end marker included."""
    return b"".join(events(seed, count, line_end)) + b"data: [DONE]" + line_end * 2


def answer(seed: int, nbytes: int) -> bytes:
    """A whole answer of about so many bytes, JSON."""
    text = "".join(random.Random(seed).choices(LETTERS, k=64))
    content = text * (nbytes // len(text.encode()) + 1)
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return json.dumps({"id": f"chat-{seed}", "model": "m", "choices": [choice]}, ensure_ascii=False).encode()
