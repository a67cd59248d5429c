"""The routes of topics: GET /v1/topics/{topic} subscribes, POST publishes. Checks the requests."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Request, Response
from fastapi.responses import JSONResponse

from ..errors import BadRequestError, BodyTooLargeError
from ..hub.memory import Hub
from ..hub.stream import Subscription
from ..protocol.sse import encode
from ..settings import Settings
from .bodies import Bodies

__all__ = ["TOPIC", "add_topics"]

TOPIC: Final = "/v1/topics/{topic}"
# The names of topics and events, which go into a path segment, a Redis key, and one line of SSE.
NAME: Final = r"^[A-Za-z0-9._~-]{1,128}$"
EVENT: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
OURS: Final = "relay."  # the prefix of names of events that only the relay may send
# The longest `id` line: `id: `, two numbers of up to 19 digits with a dash, and the line end.
ID_BYTES: Final = 48

JSON_TYPE, TEXT_TYPE = "application/json", "text/plain"

Topic = Annotated[str, Path(pattern=NAME)]


def add_topics(
    api: FastAPI,
    settings: Settings,
    admit: Callable[[Request], Awaitable[None]],
    stream: Callable[[Subscription, Request], Awaitable[Response]],
    hub: Callable[[], Hub],
    bodies: Bodies,
) -> None:
    """Add the two routes.

    admit    returns where the gate lets a request in, or raises an ApiError
    stream   makes the response of a subscription
    hub      returns the hub, or raises ShuttingDownError
    """

    @api.get(TOPIC)
    async def subscribe(
        request: Request, topic: Topic, policy: str | None = None, last_event_id: str | None = None
    ) -> Response:
        await admit(request)
        if policy is not None and policy not in settings.policies:
            raise BadRequestError(f"policy must be one of {', '.join(settings.policies)}", param="policy")
        # The header has precedence: EventSource sends it when it reconnects, to the same URL with the old query.
        last_event_id = request.headers.get("last-event-id", last_event_id)
        chosen: Any = policy or settings.subscriber_policy
        return await stream(Subscription(topic, chosen, settings.subscriber_bytes, last_event_id), request)

    @api.post(TOPIC)
    async def publish(request: Request, topic: Topic, event: str | None = None) -> Response:
        await admit(request)
        if event is not None and (not EVENT.fullmatch(event) or event.startswith(OURS)):
            raise BadRequestError(f"event must be letters, digits, . _ : -, and not begin with {OURS!r}", param="event")
        event_id = await hub().publish(topic, await fields(request, event))
        return JSONResponse({"id": str(event_id), "topic": topic}, status_code=201)

    async def fields(request: Request, event: str | None) -> bytes:
        """The event's SSE fields without an id, from the request's body. Raises ApiError.

        The body is a local of this function and not of its caller: where the hub fails, the error's traceback may keep the
        frames of all callers until a garbage collection.
        """
        body = await bodies.read(request, settings.topic_event_bytes)
        _check_body(request.headers.get("content-type", JSON_TYPE), body)
        encoded = encode(body, event=event)  # each line of the body becomes a `data` field: it may grow sevenfold
        if len(encoded) + ID_BYTES > settings.topic_event_bytes:
            raise BodyTooLargeError(settings.topic_event_bytes)
        return encoded


def _check_body(content_type: str, body: bytes) -> None:
    """Raise BadRequestError where the body is not of its content type."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (JSON_TYPE, TEXT_TYPE):
        raise BadRequestError(f"content-type must be {JSON_TYPE} or {TEXT_TYPE}")
    try:
        text = body.decode()
        if kind == JSON_TYPE:
            json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        what = "JSON" if kind == JSON_TYPE else "UTF-8"
        raise BadRequestError(f"the body is not {what}") from None


def _refuse(_: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")
