"""The relay's errors: whose fault each one is, and the HTTP status or exit code it becomes.

    RelayError
    |-- SettingsError                 exit 2     a setting is wrong: its name, its value and the remedy are in the message
    |-- ListenError                   exit 2     the relay cannot listen on its address
    |-- ChildError                    exit 3     a process that the relay needs did not start
    `-- ApiError                      http
        |-- BadRequestError           400        the request is not JSON, or has a field of the wrong type
        |-- UnauthorizedError         401        no key, or an unknown one
        |-- ForbiddenError            403        the key lacks the scope
        |-- TopicForbiddenError       403        the key's scope is for other topics
        |-- SignatureError            403        a signed URL that the relay did not make, or made for something else
        |-- UrlExpiredError           403        a signed URL is too old
        |-- ForeignPageError          403        a web page of another origin sent the request
        |-- HostError                 403        the Host header is not a name of this relay
        |-- StreamNotFoundError       404        no stream of this id, or one of another key
        |-- BodyTimeoutError          408        the request's body did not arrive in time
        |-- BodyTooLargeError         413        the request's body is above the limit
        |-- StreamExpiredError        410        a stream's events after the given one are not kept any more
        |-- TooManyError              429        the caller sends too many requests, or has too many streams open
        |-- OverloadedError           503        no room for one more stream; another instance may have some
        |   `-- NoRoomForBodyError               no room for this request's body
        |-- IdleError                 504        the upstream sent no event for too long, though perhaps bytes
        |-- TooLongError              504        the stream is past its maximum duration
        |-- HubUnavailableError       503        the topics' Redis cannot be reached; another instance may reach it
        |-- ResumeUnavailableError    503        the streams' Redis cannot be reached; another instance may reach it
        |-- StreamAbandonedError      504        a stream's client did not come back, and its upstream was closed
        |-- StreamBrokenError         502        the instance that relayed a stream is gone, and with it the upstream's answer
        |-- ShuttingDownError         503        the relay is shutting down; another instance, or its successor, will serve
        `-- UpstreamError             502        the upstream's fault; `outcome` is the ledger's word for it
            |-- UpstreamStatusError   (its own)  the upstream's own status and body, forwarded
            |-- UpstreamUnreachableError         no connection, or it broke off
            |-- UpstreamUnavailableError 503     the circuit breakers of all upstreams are open
            |-- UpstreamProtocolError            the upstream's answer breaks the protocol
            `-- UpstreamTimeoutError  504        the upstream was silent for too long

An ApiError becomes a response before the first byte of a stream (`ApiError.body`) and an SSE event after it: the same JSON
both times, in the shape that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import ClassVar, Final, TypeVar

__all__ = [
    "RETRY_SECONDS",
    "ApiError",
    "BadRequestError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ChildError",
    "ForbiddenError",
    "ForeignPageError",
    "HostError",
    "HubUnavailableError",
    "IdleError",
    "ListenError",
    "NoRoomForBodyError",
    "OverloadedError",
    "RelayError",
    "ResumeUnavailableError",
    "SettingsError",
    "ShuttingDownError",
    "SignatureError",
    "StreamAbandonedError",
    "StreamBrokenError",
    "StreamExpiredError",
    "StreamNotFoundError",
    "TooLongError",
    "TooManyError",
    "TopicForbiddenError",
    "UnauthorizedError",
    "UpstreamError",
    "UpstreamProtocolError",
    "UpstreamStatusError",
    "UpstreamTimeoutError",
    "UpstreamUnavailableError",
    "UpstreamUnreachableError",
    "UrlExpiredError",
    "error_json",
    "without_frames",
]

# The Retry-After of a 503 where nothing tells when there will be room again: when a stream, a body or a subscription ends.
RETRY_SECONDS: Final = 1.0


def error_json(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    """An error in OpenAI's JSON, UTF-8 on one line, so that it can be the data of one SSE event."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, separators=(",", ":")).encode()


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(seconds))}


# The connection carries no other request: the body of this one is not read to its end, or the relay is shutting down.
_CLOSE: Final[Mapping[str, str]] = {"connection": "close"}

Raised = TypeVar("Raised", bound="RelayError")


def without_frames(error: Raised) -> Raised:
    """Remove the tracebacks of an error and of the errors that caused it, and return it.

    For a function that keeps a caught error. Its traceback holds the frames that it went through, and the frame that keeps the
    error holds the error: a reference cycle, which would keep the stream's objects until a garbage collection.
    """
    behind: BaseException | None = error
    while behind is not None:
        behind.__traceback__ = None
        behind = behind.__cause__ or behind.__context__
    return error


class RelayError(Exception):
    """Base of all errors that a user of the relay may see. `remedy`, what to do about it, is appended to the message."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)


class SettingsError(RelayError):
    exit_code = 2


class ListenError(RelayError):
    exit_code = 2


class ChildError(RelayError):
    exit_code = 3


class ApiError(RelayError):
    """An error that a client gets as HTTP status and JSON. `message` must never hold a key, a header or a prompt.

    text           the message of all errors of a class that have the same one
    class_headers  the response's headers that all errors of a class have
    """

    status: int = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    text: ClassVar[str] = ""
    class_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        self.message = message or self.text
        super().__init__(self.message)
        self.param = param
        self.headers: dict[str, str] = dict(self.class_headers)

    def body(self) -> bytes:
        return error_json(self.message, self.kind, self.code, self.param)


class BadRequestError(ApiError):
    status = 400
    kind = "invalid_request_error"
    code = "bad_request"


class UnauthorizedError(ApiError):
    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"
    text = "a key is needed, and one that the relay knows: send Authorization: Bearer KEY"
    class_headers: ClassVar[Mapping[str, str]] = {"www-authenticate": "Bearer"}


class ForbiddenError(ApiError):
    status = 403
    kind = "invalid_request_error"
    code = "insufficient_scope"

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(f"the key {name!r} lacks the scope {scope!r}; ask whoever runs the relay for it")


class TopicForbiddenError(ApiError):
    """Says nothing of the topic, not even whether there is one."""

    status = 403
    kind = "invalid_request_error"
    code = "topic_forbidden"

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(
            f"the scope {scope!r} of the key {name!r} is not for this topic; ask whoever runs the relay for it"
        )


class SignatureError(ApiError):
    status = 403
    kind = "invalid_request_error"
    code = "invalid_signature"
    text = "the signature is not of this URL, or of a key that is not valid any more; ask for a new URL"


class UrlExpiredError(ApiError):
    """Not 410, which on these routes says that events are gone, and makes a client ask, and pay, for the answer again."""

    status = 403
    kind = "invalid_request_error"
    code = "url_expired"
    text = "the signed URL has expired; ask for a new one, and go on with &last_event_id="


class ForeignPageError(ApiError):
    status = 403
    kind = "invalid_request_error"
    code = "foreign_page"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"a web page of {origin[:200]} may not ask here; whoever runs the relay can allow it with RELAY_CORS_ORIGINS"
        )


class HostError(ApiError):
    status = 403
    kind = "invalid_request_error"
    code = "unknown_host"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"Host is {host[:200]!r}, which is no name of this relay; whoever runs it can add it to RELAY_ALLOWED_HOSTS"
        )


class BodyTimeoutError(ApiError):
    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"
    class_headers: ClassVar[Mapping[str, str]] = _CLOSE

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request's body did not arrive within {seconds:g} s")


class BodyTooLargeError(ApiError):
    status = 413
    kind = "invalid_request_error"
    code = "request_too_large"
    class_headers: ClassVar[Mapping[str, str]] = _CLOSE

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's body is larger than {limit} bytes")


class HubUnavailableError(ApiError):
    """`what_now` is appended to the message: whether to try again, or what may have happened."""

    status = 503
    code = "hub_unavailable"
    class_headers: ClassVar[Mapping[str, str]] = _retry_after(RETRY_SECONDS)

    def __init__(self, what_now: str) -> None:
        super().__init__(f"the topics' store cannot be reached; {what_now}")


class ResumeUnavailableError(ApiError):
    status = 503
    code = "resume_unavailable"
    text = "the store of streams to resume cannot be reached; the stream itself goes on: try again"
    class_headers: ClassVar[Mapping[str, str]] = _retry_after(RETRY_SECONDS)


class StreamNotFoundError(ApiError):
    status = 404
    kind = "invalid_request_error"
    code = "stream_not_found"
    text = "no stream of yours has this id; ask for the answer again"


class StreamExpiredError(ApiError):
    status = 410
    kind = "invalid_request_error"
    code = "stream_expired"
    text = "the events after this one are not kept any more; ask for the answer again"


class StreamAbandonedError(ApiError):
    status = 504
    code = "stream_abandoned"
    text = "the stream was ended before it was complete, since its client did not come back in time"


class StreamBrokenError(ApiError):
    status = 502
    code = "stream_broken"
    text = "the relay that this stream came through is gone, and the rest of it is lost; ask for it again"


class ShuttingDownError(ApiError):
    status = 503
    code = "shutting_down"
    text = "the relay is shutting down; try again"
    class_headers: ClassVar[Mapping[str, str]] = {**_retry_after(RETRY_SECONDS), **_CLOSE}


class IdleError(ApiError):
    status = 504
    code = "idle_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the upstream sent no event for {seconds:g} s")


class TooLongError(ApiError):
    status = 504
    code = "stream_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a stream may last {seconds:g} s; ask for a shorter answer, or again")


class OverloadedError(ApiError):
    status = 503
    code = "overloaded"

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.headers = _retry_after(retry_seconds)


class NoRoomForBodyError(OverloadedError):
    def __init__(self, retry_seconds: float) -> None:
        super().__init__("the relay's requests hold as many bytes as they may; try again", retry_seconds)
        self.headers |= _CLOSE


class TooManyError(ApiError):
    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.headers = _retry_after(retry_seconds)


class UpstreamError(ApiError):
    status = 502
    code = "upstream_error"
    outcome: ClassVar[str] = "upstream_error"

    @property
    def outage(self) -> bool:
        """Whether the upstream counts as failed, so that the next one is tried and the circuit breaker counts it."""
        return True


class UpstreamUnavailableError(UpstreamError):
    status = 503
    code = "upstream_unavailable"

    def __init__(self, retry_seconds: float) -> None:
        super().__init__("every upstream has failed again and again and is left alone for now; try again later")
        self.headers = _retry_after(max(1.0, retry_seconds))


class UpstreamUnreachableError(UpstreamError):
    code = "upstream_unreachable"


class UpstreamProtocolError(UpstreamError):
    code = "upstream_protocol"


class UpstreamTimeoutError(UpstreamError):
    status = 504
    code = "upstream_timeout"
    outcome = "timeout"


class UpstreamStatusError(UpstreamError):
    """The upstream's error answer: its status, its JSON body (None: none to forward), and its headers on when to retry."""

    def __init__(self, status: int, content: bytes | None, headers: Mapping[str, str]) -> None:
        super().__init__(f"the upstream answered with status {status}")
        self.status = status
        self.headers = dict(headers)
        self._content = content

    @property
    def outage(self) -> bool:
        return self.status >= 500

    def body(self) -> bytes:
        return super().body() if self._content is None else self._content
