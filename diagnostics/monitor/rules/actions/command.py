"""One command: an argument list and no shell, the firing as JSON on its standard input, a deadline for all that it starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import sys
from pathlib import Path
from typing import Final

from ....analysis.units import printable
from ....errors import TargetError
from ..rule import Command
from .messages import Facts

__all__ = ["call"]

log = logging.getLogger("diagnostics.monitor")

_CONFINED: Final = Path(__file__).with_name("confined.py")
# Never the monitor's own tokens, nor a key of another rule: what a command needs besides, its rule names.
_GIVEN: Final = ("PATH", "HOME", "LANG", "TZ")
# Of what it writes to its standard error, for the log where it fails.
_MOST_SAID_BYTES: Final = 1000


async def call(command: Command, facts: Facts) -> None:
    """Returns when it has ended with 0. Raises TargetError, after having killed what is left of it where its time is over."""
    try:
        process = await _start(command)
    except OSError as error:
        raise TargetError(f"{command.argv[0]} cannot be started: {error}", remedy="look at the rule's argv") from error
    try:
        async with asyncio.timeout(command.timeout):
            said = await _talk(process, json.dumps(facts.to_json()).encode() + b"\n")
            await process.wait()
    except TimeoutError:
        raise TargetError(
            f"{command.argv[0]} had not ended after {command.timeout:g} s, and was killed", remedy="raise its timeout"
        ) from None
    finally:
        await _end(process)
    if process.returncode:
        # For the log alone: the error is shown on the page, and nobody knows what a command says.
        log.warning("%s said: %s", command.argv[0], said or "nothing")
        raise TargetError(
            f"{command.argv[0]} ended with {process.returncode}", remedy="look at what it said in the monitor's log"
        )


async def _start(command: Command) -> asyncio.subprocess.Process:
    """Raises OSError. Where this is cancelled meanwhile, what has been started is killed with all that it started itself."""
    environment = {name: os.environ[name] for name in (*_GIVEN, *command.env) if name in os.environ}
    limits = (str(math.ceil(command.timeout)), str(command.memory))
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_CONFINED), *limits, *command.argv,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env=environment, cwd="/", start_new_session=True,
        )
    )  # fmt: skip
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _talk(process: asyncio.subprocess.Process, given: bytes) -> str:
    """Gives it its input, and reads its standard error to the end: the first bytes of that are kept."""
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(given)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read it
        await process.stdin.drain()
    process.stdin.close()
    said = b""
    while chunk := await process.stderr.read(4096):
        said += chunk[: _MOST_SAID_BYTES - len(said)]
    return printable(" ".join(said.decode("utf-8", "replace").split()))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of its session, which is of our making, and wait for the process itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()
