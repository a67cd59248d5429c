"""One client over TLS, on asyncio's own loop and on uvloop: they read in different ways."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from diagnostics.proof.clients.address import Address, RequestMessage
from diagnostics.proof.clients.mix import Behavior, Fast, Slow
from diagnostics.proof.clients.stream import StreamTarget, run_stream
from diagnostics.proof.clients.tally import Tally
from tests.scripted import END, HEAD, chunk, events, listening


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate that nobody else trusts."""
    folder: Path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-keyout", str(folder / "key"), "-out", str(folder / "certificate")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate", folder / "key")
    return context


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "behavior", [Fast(), Slow(bytes_per_second=20_000), Slow.coarse(20_000)], ids=["fast", "slow", "coarse"]
)
def test_all_bytes_come_over_tls_in_their_order(
    behavior: Behavior, loop: Callable[[], asyncio.AbstractEventLoop], certified: ssl.SSLContext
) -> None:
    # Each piece is a TLS record: a step of a slow client takes several, and ends within one.
    pieces = [HEAD, *(chunk(events(1, size)) for size in range(10, 900, 50)), END]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await reader.read()
        writer.close()

    async def main() -> Tally:
        tally = Tally()
        async with listening(serve, certified) as port:
            address = Address("https", "127.0.0.1", port, "/")
            await run_stream(
                StreamTarget(address, RequestMessage(), verify_tls=False, patience_seconds=30), behavior, tally
            )
        return tally

    with asyncio.Runner(loop_factory=loop) as runner:
        tally = runner.run(main())
    assert (tally.outcomes, tally.errors) == ({"completed": 1}, {})
    assert (tally.events, tally.bytes) == (len(pieces) - 2, sum(map(len, pieces)))
