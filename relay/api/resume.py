"""The routes by which a client gets the rest of a stream: GET /v1/streams/{id}, and OpenAI's own GET /v1/responses/{id}.

Both are there only where RELAY_RESUME is set; so is the Last-Event-ID of the routes that stream (routes.py).

| the client says where it is by | as |
|---|---|
| Last-Event-ID, or ?last_event_id= | the id of an event; the header has precedence, since EventSource sends it to its old URL |
| ?starting_after=N of /v1/streams/{id} | the number in the id of an event; without it the stream is sent from its beginning |
| ?starting_after=N of /v1/responses/{id} | OpenAI's `sequence_number`; without it the stream is sent from its beginning |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

from fastapi import FastAPI, Path, Query, Request, Response

from ..errors import BadRequestError, StreamNotFoundError
from ..resume.ids import STREAM_ID, Position, parse_position
from ..resume.store import Store

__all__ = ["RESPONSE", "STREAM_REST", "add_resume", "last_event_id"]

STREAM_REST: Final = "/v1/streams/{stream_id}"
RESPONSE: Final = "/v1/responses/{response_id}"

StreamId = Annotated[str, Path(pattern=rf"^{STREAM_ID}$")]
ResponseId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,256}$")]
Number = Annotated[int, Query(ge=0, lt=10**15)]


def last_event_id(request: Request) -> Position | None:
    """Where the client is by its Last-Event-ID; None where it has sent none. Raises StreamNotFoundError for a foreign one."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return None
    position = parse_position(text)
    if position is None:
        raise StreamNotFoundError
    return position


def add_resume(
    api: FastAPI,
    store: Store,
    admit: Callable[[Request], Awaitable[None]],
    resumed: Callable[[Position, str, Request], Awaitable[Response]],
    owner: Callable[[Request], str],
) -> None:
    """Add the two routes.

    admit     returns where the gate lets a request in, or raises an ApiError
    resumed   makes the response that goes on after a position, on a route
    owner     the name by which a stream is its caller's
    """

    @api.get(STREAM_REST)
    async def rest(request: Request, stream_id: StreamId, starting_after: Number = 0) -> Response:
        await admit(request)
        position = Position(stream_id, starting_after)
        stated = last_event_id(request)
        if stated is not None and stated.stream != stream_id:
            raise BadRequestError("Last-Event-ID is of another stream than the path", param="last_event_id")
        return await resumed(stated or position, STREAM_REST, request)

    @api.get(RESPONSE)
    async def response(
        request: Request,
        response_id: ResponseId,
        stream: Literal["true"],
        starting_after: Number | None = None,
    ) -> Response:
        await admit(request)
        named = await store.of_response(response_id, owner(request))
        number = 0 if starting_after is None else max(starting_after + named.difference, 0)
        return await resumed(Position(named.stream, number), RESPONSE, request)
