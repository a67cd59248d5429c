"""What agent and monitor say to each other, and where they meet. Standard library only.

They meet in a private folder, `<root>/agents/`, where each agent listens on the unix socket `<pid>.sock`. The name is for
people: who listens is what the kernel says (SO_PEERCRED), since containers that share the folder may number alike. A
conversation is one connection: a request, a reply, the end. Both are frames: four bytes of length (big-endian), then that
many bytes of UTF-8 JSON.

    request   {"version": 1, "op": "ledger", "params": {...}}
    reply     {"version": 1, "result": {...}}
           or {"version": 1, "error": {"code": "...", "message": "...", "remedy": "..."}}

Nothing pickled is ever sent or read. A version that the other side does not know is answered with an error that names
both, so that an old agent beside a new monitor is a message and not a riddle.

The law of this file: it is loaded with the agent into other people's services, so it imports next to nothing. Paths are
strings (pathlib brings urllib), and JSON comes with the first message.
"""

from __future__ import annotations

import os
import stat
import time

from .errors import ProtocolError, RefusedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from os import PathLike
    from typing import Any

__all__ = [
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "VERSION",
    "agent_socket",
    "agents_folder",
    "default_root",
    "dropped_root",
    "frame",
    "private_folder",
    "read_frame",
    "reply_error",
    "reply_result",
    "request",
]

VERSION = 1

# A request is an operation and a few parameters.
MAX_REQUEST_BYTES = 64 * 1024
# The largest reply is a profile: 25 frames deep, a hundred thousand stacks, interned, is about 40 MiB.
MAX_REPLY_BYTES = 256 * 1024 * 1024

_LENGTH_BYTES = 4
# sizeof(sun_path) on Linux, less the closing NUL.
_MAX_SOCKET_PATH = 107


def frame(message: dict[str, Any]) -> bytes:
    """Encode one message as it goes over the socket."""
    import json

    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read_frame(connection: _socket.socket, limit: int) -> dict[str, Any]:
    """Read one message of at most `limit` bytes; the socket's own time-out applies to the whole of it, however it drips in.

    Raises ProtocolError if the peer leaves early, sends more than `limit`, or sends something else than a JSON object.
    """
    import json

    patience = connection.gettimeout()
    until = None if patience is None else time.monotonic() + patience
    try:
        length = int.from_bytes(_read_exactly(connection, _LENGTH_BYTES, until), "big")
        if length > limit:
            raise ProtocolError(f"a message of {length} bytes was announced, the limit is {limit}")
        body = _read_exactly(connection, length, until)
    finally:
        connection.settimeout(patience)
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message must be a JSON object, not {type(message).__name__}")
    return message


def _read_exactly(connection: _socket.socket, length: int, until: float | None) -> bytes:
    """`until`: monotonic. Raises TimeoutError then."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{len(view)} of {length} bytes have not come in time")
            connection.settimeout(left)
        count = connection.recv_into(view)
        if count == 0:
            raise ProtocolError(f"the peer left with {len(view)} of {length} bytes unsent")
        view = view[count:]
    return bytes(data)


def request(op: str, /, **params: Any) -> dict[str, Any]:
    return {"version": VERSION, "op": op, "params": params}


def reply_result(result: dict[str, Any]) -> dict[str, Any]:
    return {"version": VERSION, "result": result}


def reply_error(code: str, message: str, remedy: str = "", **details: Any) -> dict[str, Any]:
    return {"version": VERSION, "error": {"code": code, "message": message, "remedy": remedy, **details}}


def private_folder(path: str | PathLike[str]) -> None:
    """Make `path` a folder that only its owner can enter, or refuse it.

    A folder in /tmp that someone else made first would let them listen in on the agent: it is refused, not repaired.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if not os.path.lexists(path):
        try:
            os.mkdir(path, mode=0o700)
        except FileExistsError:  # since made by someone: judged like one that was there
            pass
    facts = os.lstat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise RefusedError(f"{path} is not a folder", remedy="remove it, or set DIAGNOSTICS_DIR to another folder")
    if facts.st_uid != os.geteuid():
        raise RefusedError(
            f"{path} belongs to uid {facts.st_uid}, not to uid {os.geteuid()}",
            remedy="set DIAGNOSTICS_DIR to a folder of your own",
        )
    if stat.S_IMODE(facts.st_mode) & 0o077:
        os.chmod(path, 0o700)


def default_root(listen: str = "127.0.0.1:6060") -> str:
    """DIAGNOSTICS_DIR, or a folder for the monitor at `listen` below the user's own one in the temporary folder.

    A monitor that comes back on the same address so finds its captures again, and two services on one machine, having
    two addresses, keep apart.
    """
    configured = os.environ.get("DIAGNOSTICS_DIR")
    if configured:
        return os.path.abspath(configured)
    import re
    import tempfile  # costs more than all of this file, and a service started by `diagnostics run` never comes here

    # The temporary folder is everybody's: our own one in it must be ours before anything below it can be private.
    own = os.path.join(tempfile.gettempdir(), f"highwater-{os.geteuid()}")
    private_folder(own)
    return os.path.join(own, re.sub(r"[^0-9A-Za-z.]+", "-", listen).strip("-"))


def dropped_root(root: str | PathLike[str], uid: int) -> str:
    """Where a process of user `uid` registers with the monitor of `root` if that folder is another user's.

    A service that is started by root and drops its privileges cannot enter root's folder, and should not. Its agent then
    listens in a private folder of its own user, at a place that both sides can derive; root's monitor looks there, too.
    """
    from binascii import crc32

    known_by = crc32(os.fsencode(os.path.abspath(root)))
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"highwater-{uid}", f"of-{known_by:08x}")  # noqa: S108


def agents_folder(root: str | PathLike[str]) -> str:
    """The registry: one socket for each agent."""
    return os.path.join(root, "agents")


def agent_socket(root: str | PathLike[str], pid: int, number: int = 1) -> str:
    """Where the agent of process `pid` listens. Raises UsageError where the path is too long for a unix socket.

    number   above 1 where an agent of another PID namespace has that pid, too, and came first: containers that share a
             volume each have a process 1
    """
    path = os.path.join(agents_folder(root), f"{pid}.sock" if number == 1 else f"{pid}-{number}.sock")
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise UsageError(
            f"the socket path {path} is longer than {_MAX_SOCKET_PATH} bytes",
            remedy="set DIAGNOSTICS_DIR to a shorter path",
        )
    return path
