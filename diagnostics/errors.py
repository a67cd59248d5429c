"""The exceptions, with the exit code and HTTP status of each.

    DiagnosticsError                 exit  http
    |-- UsageError                   2     422   the caller's input is wrong: the value and the remedy are in the message
    |-- NotFoundError                2     404   no such capture, artifact, worker, scenario
    |-- BusyError                    1     409   one capture runs at a time; the message names it
    |-- TooCostlyError               1     503   it would be an outage; carries the estimate; force overrides
    |-- NoRoomError                  1     507   the artifact store is full
    |-- RefusedError                 2     403   not safe as configured (listener, token, folder rights)
    |-- TargetError                  3     502   the service under study failed, has ended, or cannot do this
    |   `-- TargetSilentError        3     504   it did not answer in time: loop blocked, GIL held, stopped
    `-- ProtocolError                3     502   agent and monitor do not understand each other

A command translates an error into its exit code once, in `cli.main`; the monitor translates it into a status once, in
`monitor.web.app`. `code` is the word for programs; it never changes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Loaded with the agent into other people's services, where typing would be most of its cost.
    from typing import Any, ClassVar

__all__ = [
    "BusyError",
    "DiagnosticsError",
    "NoRoomError",
    "NotFoundError",
    "ProtocolError",
    "RefusedError",
    "TargetError",
    "TargetSilentError",
    "TooCostlyError",
    "UsageError",
]


class DiagnosticsError(Exception):
    """Base of all errors that a user may meet.

    `message` names the fault, with the value; `remedy` the solution; `details` are facts for programs.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str = "", code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.details = details
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may have a more specific code

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON: `{"code", "message", "remedy", ...details}`."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, **self.details}


class UsageError(DiagnosticsError):
    code = "usage"
    exit_code = 2
    http_status = 422


class NotFoundError(DiagnosticsError):
    code = "not_found"
    exit_code = 2
    http_status = 404


class BusyError(DiagnosticsError):
    code = "busy"
    exit_code = 1
    http_status = 409


class TooCostlyError(DiagnosticsError):
    code = "too_costly"
    exit_code = 1
    http_status = 503


class NoRoomError(DiagnosticsError):
    code = "no_room"
    exit_code = 1
    http_status = 507


class RefusedError(DiagnosticsError):
    code = "refused"
    exit_code = 2
    http_status = 403


class TargetError(DiagnosticsError):
    code = "target_failed"
    exit_code = 3
    http_status = 502


class TargetSilentError(TargetError):
    code = "target_silent"
    http_status = 504


class ProtocolError(DiagnosticsError):
    code = "protocol"
    exit_code = 3
    http_status = 502
