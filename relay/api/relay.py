"""The state that the routes of one relay share, and the responses they make: a stream, a subscription, an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from diagnostics import StreamLedger

from ..admission.gate import Gate
from ..admission.signed import Signing
from ..client.bounds import Reject
from ..errors import ApiError, ShuttingDownError, UpstreamError
from ..hub.memory import Hub
from ..hub.stream import Subscription, TopicStream
from ..memory.requests import RequestBudget
from ..protocol.facts import answer_facts
from ..resume.ids import Position
from ..resume.life import Productions
from ..resume.response import ResumableStream
from ..resume.resumed import ResumedStream
from ..resume.store import Store
from ..settings import Settings
from ..stream.answer import LargeAnswer
from ..stream.call import Call, Span, StreamOptions
from ..stream.degraded import DEGRADED, degraded_answer
from ..stream.ending import Ending
from ..stream.patience import Limits
from ..stream.response import RelayedStream
from ..stream.sweep import OpenStreams
from ..telemetry import Telemetry
from ..upstream.upstream import Answer
from ..upstream.upstreams import Upstreams
from .bodies import Bodies
from .drain import Drain
from .requests import OpenAnswers, caller, owner, retry_field
from .resume import last_event_id
from .topics import TOPIC

__all__ = ["Relay"]


@dataclass
class Relay:
    """The shared objects of one relay, put together by app.py.

    upstream      None until the relay has started
    resuming      where streams are kept for clients that come back; None where they are not
    signing       what signs URLs; None where none are signed
    productions   the streams under way that are kept
    api           the FastAPI app with the routes
    app           the ASGI app to serve: `api` in its middlewares
    drain         the state of the shutdown
    """

    settings: Settings
    upstream_url: str
    ledger: StreamLedger
    telemetry: Telemetry
    gate: Gate
    stream_options: StreamOptions
    hub: Hub
    reject: Reject
    request_budget: RequestBudget
    resuming: Store | None = None
    signing: Signing | None = None
    productions: Productions = field(default_factory=dict)
    open_streams: OpenStreams = field(default_factory=OpenStreams)
    answers: OpenAnswers = field(default_factory=OpenAnswers)
    upstream: Upstreams | None = None
    api: FastAPI | None = None
    app: Any = None

    def __post_init__(self) -> None:
        self.drain = Drain(self.settings.drain_seconds, self.open_streams, self.answers)
        self.bodies = Bodies(self.settings.request_body_timeout_seconds, self.request_budget, self.reject)

    @property
    def ready(self) -> bool:
        return self.upstream is not None and not self.drain.begun

    def serving_upstream(self) -> Upstreams:
        """The upstreams. Raises ShuttingDownError where new requests are refused."""
        if self.upstream is None or self.drain.begun:
            raise ShuttingDownError
        return self.upstream

    def span(self, call: Call, headers: Mapping[str, str]) -> Span:
        """A span for one call to the upstream; `headers` are those of the caller's request."""
        return self.telemetry.call_span(call, headers, self.serving_upstream().address)

    async def stream(
        self, call: Call, route: str, request: Request, *, event_source: bool = False, early: bool = False
    ) -> Response:
        """The response that relays a stream; `early` as in RelayedStream.

        Raises ShuttingDownError, OverloadedError and TooManyError.
        event_source   the client is an EventSource: it is told when to come back, where it will get the rest of this stream
        """
        options: dict[str, Any] = {
            "route": route,
            "options": self.stream_options,
            "upstream": self.serving_upstream(),
            "ledger": self.ledger,
            "place": await self.gate.place(caller(request)),
            "open_streams": self.open_streams,
            "start_span": self.span,
            "request_headers": request.headers,
            "early": early,
        }
        if self.resuming is None:
            # No `retry` line: an EventSource that comes back without an id asks for the whole answer, and pays, again.
            return RelayedStream(call, **options)
        return ResumableStream(
            call,
            caller=owner(request),
            store=self.resuming,
            productions=self.productions,
            grace_seconds=self.settings.resume_grace_seconds,
            retry=retry_field(self.settings.retry_seconds) if event_source else None,
            **options,
        )

    async def resumed(self, position: Position, route: str, request: Request) -> Response:
        """The response that is the rest of a kept stream. Raises ShuttingDownError, OverloadedError and TooManyError."""
        self.serving_upstream()
        settings = self.settings
        assert self.resuming is not None, "there are routes for it only where streams are kept"
        return ResumedStream(
            position,
            owner(request),
            event_source=last_event_id(request) is not None,
            route=route,
            store=self.resuming,
            productions=self.productions,
            ledger=self.ledger,
            place=await self.gate.place(caller(request)),
            open_streams=self.open_streams,
            limits=settings.limits,
            tell=self.telemetry.stream_ended,
            write_bytes=settings.stream_budget.read_bytes,
        )

    def serving_hub(self) -> Hub:
        """The hub. Raises ShuttingDownError where new requests are refused."""
        self.serving_upstream()
        return self.hub

    async def subscription(self, subscription: Subscription, request: Request) -> Response:
        """The response that is a topic's subscription. Raises ShuttingDownError, OverloadedError and TooManyError."""
        settings = self.settings
        return TopicStream(
            subscription,
            route=TOPIC,
            hub=self.serving_hub(),
            ledger=self.ledger,
            open_streams=self.open_streams,
            place=await self.gate.place(caller(request)),
            limits=settings.limits,
            tell=self.telemetry.stream_ended,
            retry=retry_field(settings.retry_seconds),
            write_bytes=settings.stream_budget.read_bytes,
        )

    async def answer(self, call: Call, route: str, request: Request) -> Response:
        """Relay an answer that does not stream. It takes a stream's place at the gate, since it may hold as many bytes."""
        upstream = self.serving_upstream()
        with contextlib.ExitStack() as place:
            place.enter_context(await self.gate.place(caller(request)))
            span = self.span(call, request.headers)
            try:
                answer = await upstream.answer(call.endpoint.upstream_path, call.content, span.headers, span.event)
            except UpstreamError as error:
                span.end(Ending.of(error.outcome, error=error))
                if error.outage and self.settings.degraded_message and call.endpoint.degraded:
                    content = degraded_answer(call.model, self.settings.degraded_message)
                    return Response(content, headers=DEGRADED, media_type="application/json")
                raise
            except asyncio.CancelledError:
                span.end(Ending.of("shutdown" if self.drain.begun else "client_disconnected"))
                raise
            if answer.rest is not None:
                return self._flowing(
                    answer, route, place.pop_all(), lambda outcome, error: span.end(Ending.of(outcome, error=error))
                )
            facts = answer_facts(answer.content) if self.telemetry.enabled else None
            span.end(Ending.of("completed", facts=facts), facts)
            return Response(answer.content, answer.status, answer.headers)

    async def models(self, route: str, request: Request) -> Response:
        """Relay the upstream's list of models."""
        upstream = self.serving_upstream()
        with contextlib.ExitStack() as place:
            place.enter_context(await self.gate.place(caller(request)))
            answer = await upstream.models()
            if answer.rest is not None:
                return self._flowing(answer, route, place.pop_all(), lambda *_: None)
            return Response(answer.content, answer.status, answer.headers)

    def _flowing(
        self,
        answer: Answer,
        route: str,
        place: contextlib.AbstractContextManager[Any],
        ended: Callable[[str, ApiError | None], None],
    ) -> Response:
        """The response for an answer above WHOLE_BYTES, which is relayed chunk by chunk."""
        settings = self.settings
        return LargeAnswer(
            answer,
            route=route,
            ledger=self.ledger,
            open_streams=self.open_streams,
            place=place,
            limits=Limits(
                settings.response_timeout_seconds, settings.write_timeout_seconds, total=settings.stream_timeout_seconds
            ),
            max_bytes=settings.max_response_bytes,
            ended=ended,
        )
