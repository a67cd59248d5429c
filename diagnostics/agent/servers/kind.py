"""The base class of a server that serves with asyncio tasks: its coroutines, and how to read a request from a frame."""

from __future__ import annotations

from .releases import moved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .snapshot import OpenRequest, ServerLook

    Roles = Mapping[tuple[str, str], str]

__all__ = ["CONNECTION", "LASTING", "OTHER", "REQUEST", "SERVER", "ServerKind"]

# Roles of a server's coroutines.
SERVER = "runs as long as the server"
CONNECTION = "one for each connection, idle ones included"
REQUEST = "one for each request, until its response has ended"
LASTING = "one for each connection, whose requests it serves one after another"
OTHER = "nothing that is counted"

_EMPTY: Roles = {}


class ServerKind:
    """One server; its private names stand in the subclass and nowhere else.

    name      as in `releases.CHECKED`
    modules   prefixes of the names of the server's modules: a task or thread in their code shows that the server runs
    roles     (module, function) -> the role of its coroutine; functions on threads' stacks are looked up here, too
    blind     (module, function or class of a task) -> why streams cannot be seen where this one is found
    lasting   whether one task serves several requests one after another
    tells_connections   whether each connection has a task

    `seen`: whether any look has found it serving. Of the present look: `connections`, the number of connection tasks; `gone`,
    how many of these connections are closed although their task runs; the open `requests`; `failed`, how many could not be
    read; `missing`, the last attribute or variable that was not found.
    """

    name = ""
    modules: tuple[str, ...] = ()
    roles: Roles = _EMPTY
    blind: Roles = _EMPTY
    lasting = False
    tells_connections = True

    def __init__(self) -> None:
        self.seen = self.has_connected = False
        self.strays: set[str] = set()
        self.in_threads: set[str] = set()
        self.reason = ""
        self.new_look()

    def new_look(self) -> None:
        self.connections = self.gone = self.failed = 0
        self.missing = ""
        self.requests: list[OpenRequest] = []

    def listens(self) -> bool:
        """Whether this server accepts connections, for a server without a task or thread that shows it."""
        return False

    def open_connections(self) -> int:
        """How many connections are open."""
        return self.connections - self.gone

    def thing(self, task: Any, names: Mapping[str, Any]) -> Any:
        """The server's object for the request that `task` serves, from the locals `names` of its frame; None: no request.

        A WebSocket counts as a connection only.
        """
        raise NotImplementedError

    def begin(self, thing: Any, request: OpenRequest, look: ServerLook) -> None:
        """Set the fields of a request that never change: `fd` and, where the server keeps its start, `since`."""

    def refresh(self, thing: Any, request: OpenRequest) -> bool:
        """Set `started`, `route` and `transport_bytes`; False where the response has ended or the client has gone."""
        raise NotImplementedError

    def method_and_path(self, thing: Any) -> tuple[Any, Any]:
        """Method and raw path, without its query."""
        raise NotImplementedError

    def could_not(self, error: Exception) -> None:
        """Note a failed read: of one request that is just closing, or of all, because a private name has moved."""
        self.failed += 1
        if isinstance(error, AttributeError) and error.obj is not None:
            self.missing = f"{type(error.obj).__name__}.{error.name}"
        elif isinstance(error, KeyError):
            # From Python 3.13 on the key is within a sentence.
            key = str(error.args[0]).removeprefix("local variable ").removesuffix(" is not defined").strip("'")
            self.missing = f"the local variable {key!r} of the task that serves"
        elif isinstance(error, TypeError):
            self.missing = str(error)

    def why_unknown(self) -> str:
        """A sentence why this server's streams are unknown; empty where they are known, or the server does not run."""
        self.has_connected = self.has_connected or self.connections > 0 or bool(self.requests)
        if self.reason:
            return self.reason
        if self.missing and not self.requests:
            return moved(self.name, self.missing)
        if self.tells_connections and not self.connections and any(row.fd is not None for row in self.requests):
            return moved(self.name, "its connections")
        strays = self.strays if self.seen else self.strays | self.in_threads
        if strays and not self.has_connected:
            return moved(self.name, f"the tasks that serve (instead there is {min(strays)})")
        return ""
