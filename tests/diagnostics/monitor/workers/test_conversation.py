"""An agent is a peer: whatever it answers is an answer, or an error with its reason, and never more than was to be expected."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from diagnostics.errors import DiagnosticsError, ProtocolError, TargetError, TargetSilentError
from diagnostics.monitor.workers.conversation import ask
from diagnostics.protocol import VERSION


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def answered(tmp_path: Path, answer: bytes, op: str = "reading", *, patience: float = 30.0, stays: bool = False) -> Any:
    """What `ask` makes of an agent that sends these bytes, and then stays silent or leaves."""

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
                writer.write(answer)
                await writer.drain()
                if not stays:
                    writer.write_eof()
                await reader.read()  # until the monitor has left
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        finally:
            left.set()

    left = asyncio.Event()

    async def conversation() -> Any:
        async with await asyncio.start_unix_server(agent, tmp_path / "a.sock"):
            try:
                return await ask(tmp_path / "a.sock", op, patience=patience)
            finally:
                await left.wait()

    return asyncio.run(conversation())


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (framed(b"[" * 100_000), ProtocolError, "not JSON"),
        (framed(b"9" * 5_000), ProtocolError, "not JSON"),
        (framed(b'{"version": 1, "result": {"tasks": NaN}}'), ProtocolError, "NaN is no number"),
        (framed(b"\xff"), ProtocolError, "not JSON"),
        (framed(b"[]"), ProtocolError, "must be an object"),
        (framed(b'{"version": 1}'), ProtocolError, "result must be an object"),
        (framed(b'{"version": 99, "result": {}}'), ProtocolError, "version 99"),
        ((2**32 - 1).to_bytes(4, "big"), ProtocolError, "the limit is 16777216"),
        (b"\0\0", TargetError, "left in the middle"),
        (b"", TargetError, "left in the middle"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    tmp_path: Path, answer: bytes, error: type[DiagnosticsError], says: str
) -> None:
    with pytest.raises(error, match=says):
        answered(tmp_path, answer)


def test_the_rest_of_an_answer_is_waited_for_no_longer_than_the_patience(tmp_path: Path) -> None:
    with pytest.raises(TargetSilentError):
        answered(tmp_path, framed(b"{}" + b" " * 1000)[:100], patience=0.3, stays=True)


def test_what_is_asked_every_second_may_be_small_only(tmp_path: Path) -> None:
    large = framed(json.dumps({"version": VERSION, "result": {"text": "x" * 5_000_000}}).encode())
    assert len(answered(tmp_path, large, "retained")["text"]) == 5_000_000
    with pytest.raises(ProtocolError, match="the limit is 4194304"):
        answered(tmp_path, large, "sample")
