"""The protocol between agent and monitor, and the folder of the agents' sockets. Standard library only.

Each agent listens on the unix socket `<pid>.sock` in a private folder, `<root>/agents/`. The name is for people: the monitor
takes the listener's pid from the kernel (SO_PEERCRED), since processes in containers that share the folder may have equal
pids. A connection carries one request and one reply. Both are frames: four bytes of length (big-endian), then that many bytes
of UTF-8 JSON.

    request   {"version": 1, "op": "ledger", "params": {...}}
    reply     {"version": 1, "result": {...}}
           or {"version": 1, "error": {"code": "...", "message": "...", "remedy": "..."}}

Nothing is ever pickled. A request of an unknown version is answered with an error that names both versions, as with an old
agent beside a new monitor.

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
    "MAX_ADDRESS_BYTES",
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "READING_NAME",
    "VERSION",
    "agent_socket",
    "agents_folder",
    "default_root",
    "dropped_root",
    "frame",
    "framed",
    "private_folder",
    "read_frame",
    "reply_error",
    "reply_result",
    "request",
    "socket_address",
]

VERSION = 1

# The name that a forked reading gives itself, for ps and for the monitor: it is no child of the service's. 15 bytes at most.
READING_NAME = "hw-reading"

# A request is an operation and a few parameters.
MAX_REQUEST_BYTES = 64 * 1024
# The largest reply is a profile: 25 frames deep, a hundred thousand stacks, interned, is about 40 MiB.
MAX_REPLY_BYTES = 256 * 1024 * 1024

_LENGTH_BYTES = 4
# sizeof(sun_path) on Linux, less the closing NUL.
MAX_ADDRESS_BYTES = 107


def frame(message: dict[str, Any]) -> bytes:
    """Encode one message as a frame."""
    import json

    return framed(json.dumps(message, separators=(",", ":")))


def framed(text: str) -> bytes:
    """A message that has been encoded, as a frame."""
    body = text.encode()
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read_frame(connection: _socket.socket, limit: int) -> dict[str, Any]:
    """Read one message of at most `limit` bytes; the socket's time-out applies to the complete message.

    Raises ProtocolError if the peer closes early, sends more than `limit`, or sends anything but a JSON object.
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
    """Read `length` bytes. `until`: deadline, monotonic seconds. Raises TimeoutError, ProtocolError."""
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
    """Create the folder `path` for its owner only. Raises RefusedError where it is another user's, or no folder.

    A folder in /tmp that another user has created first would let that user impersonate the agent.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    if not os.path.lexists(path):
        try:
            os.mkdir(path, mode=0o700)
        except FileExistsError:  # created meanwhile: checked like one that existed
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

    So a monitor that is restarted on the same address finds its captures again, and two services on one machine, with two
    addresses, have separate folders.
    """
    configured = os.environ.get("DIAGNOSTICS_DIR")
    if configured:
        return os.path.abspath(configured)
    import re
    import tempfile  # slow to import, and not needed in a service under `diagnostics run`

    # All users can write to the temporary folder: our own folder in it must be private before anything below it can be.
    own = os.path.join(tempfile.gettempdir(), f"highwater-{os.geteuid()}")
    private_folder(own)
    return os.path.join(own, re.sub(r"[^0-9A-Za-z.]+", "-", listen).strip("-"))


def dropped_root(root: str | PathLike[str], uid: int) -> str:
    """The folder in which a process of user `uid` registers with the monitor of `root`, where that is another user's.

    A service that is started by root and drops its privileges cannot enter root's folder, and should not. Its agent then
    listens in a private folder of its own user, whose path both sides can derive; root's monitor reads it, too.
    """
    from binascii import crc32

    known_by = crc32(os.fsencode(os.path.abspath(root)))
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"highwater-{uid}", f"of-{known_by:08x}")  # noqa: S108


def agents_folder(root: str | PathLike[str]) -> str:
    """The registry folder of `root`, with one socket for each agent."""
    return os.path.join(root, "agents")


def agent_socket(root: str | PathLike[str], pid: int, number: int = 1) -> str:
    """The path of the socket of process `pid`'s agent.

    number   above 1 where the agent of a process with the same pid in another PID namespace has the name already:
             containers that share a volume each have a process 1
    """
    return os.path.join(agents_folder(root), f"{pid}.sock" if number == 1 else f"{pid}-{number}.sock")


def socket_address(path: str | PathLike[str]) -> tuple[str, int | None]:
    """The address of a unix socket's path, and a descriptor to be closed once it has been used.

    An address has 107 bytes at most (unix(7)). A longer path is named through its folder's descriptor.
    Raises UsageError where there are no such descriptors, OSError where the folder is gone.
    """
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        return os.fspath(path), None
    if not hasattr(os, "O_PATH") or not os.path.isdir("/proc/self/fd"):
        raise UsageError(
            f"the socket path {path} is longer than {MAX_ADDRESS_BYTES} bytes",
            remedy="set DIAGNOSTICS_DIR to a shorter path",
        )
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{os.path.basename(path)}", folder
