"""Sends one request to an agent over its unix socket, within a time limit."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import DiagnosticsError, ProtocolError, TargetError, TargetSilentError
from ...protocol import MAX_REPLY_BYTES, VERSION, frame, request
from ..kernel.short_path import short_path

__all__ = ["ask"]

# Limit of answers to requests that are sent every second: a few kilobytes, with a hundred routes a few hundred.
_SMALL_BYTES = 4 * 1024 * 1024
_LIMITS = {
    **dict.fromkeys(("hello", "sample", "window.watch", "window.end", "gc.collect"), _SMALL_BYTES),
    "reading": 4 * _SMALL_BYTES,
}


async def ask(path: Path, op: str, /, *, patience: float, **params: Any) -> dict[str, Any]:
    """Send the operation `op` to the agent at `path` and return its result.

    Raises TargetSilentError after `patience` seconds without a complete answer, TargetError where no agent listens or the
    operation failed, and the agent's own error (UsageError, BusyError) where it refused.
    """
    try:
        async with asyncio.timeout(patience):
            reply = await _exchange(path, op, frame(request(op, **params)))
    except TimeoutError as error:
        raise TargetSilentError(
            f"the agent did not answer {op!r} within {patience:g} s",
            remedy="its process is stopped, or holds the GIL; readings from outside go on",
        ) from error
    except OSError as error:
        raise TargetError(
            f"no agent answers at {path.name}: {error.strerror or error}",
            remedy="the process ended, or was started without its agent",
            code="agent_gone",
        ) from error
    if reply.get("version") != VERSION:
        raise ProtocolError(
            f"the agent speaks version {reply.get('version')!r}, this monitor speaks {VERSION}",
            remedy="run the same version of highwater-diagnostics in the service and in the monitor",
        )
    if "error" in reply:
        raise _as_error(reply["error"])
    result = reply.get("result")
    if not isinstance(result, dict):
        raise ProtocolError(f"the agent's result must be an object, not {type(result).__name__}")
    return result


async def _exchange(path: Path, op: str, message: bytes) -> dict[str, Any]:
    limit = _LIMITS.get(op, MAX_REPLY_BYTES)
    with short_path(path) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    try:
        writer.write(message)
        await writer.drain()
        (length,) = struct.unpack(">I", await reader.readexactly(4))
        if length > limit:
            raise ProtocolError(f"the agent announced {length} bytes, the limit is {limit}")
        body = await reader.readexactly(length)
        # Only the service's own metrics may be NaN or infinite; other answers are sent on as JSON, which has neither.
        reply = json.loads(body) if op == "registered" else json.loads(body, parse_constant=_no_number)
    except asyncio.IncompleteReadError as error:
        raise TargetError(
            "the agent left in the middle of its answer", remedy="the process ended", code="agent_gone"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the agent's answer is not JSON: {error}") from error
    finally:
        writer.close()
    if not isinstance(reply, dict):
        raise ProtocolError(f"the agent's answer must be an object, not {type(reply).__name__}")
    return reply


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


# An error's code in the agent's answer -> its class.
_CLASSES: dict[str, type[DiagnosticsError]] = {
    "usage": errors.UsageError,
    "busy": errors.BusyError,
    "tracker_active": errors.BusyError,
    "memray_missing": errors.UsageError,
    "refused": errors.RefusedError,
    "protocol": ProtocolError,
}


def _as_error(fields: dict[str, Any]) -> DiagnosticsError:
    facts = dict(fields)
    code, message, remedy = (str(facts.pop(key, "")) for key in ("code", "message", "remedy"))
    return _CLASSES.get(code, TargetError)(message, remedy=remedy, code=code, **facts)
