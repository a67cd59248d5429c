"""Every failure of a request as OpenAI's JSON: the relay's own errors, the framework's, and unexpected exceptions."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import ApiError, error_json

__all__ = ["add_error_handlers"]

CLIENT_CLOSED = 499  # nginx's status for a client that has left; no client reads it


def add_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> Response:
        return Response(error.body(), error.status, error.headers, "application/json")

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail}: {request.method} {request.url.path}"
        return Response(
            error_json(message, "invalid_request_error", f"http_{error.status_code}"),
            error.status_code,
            error.headers,
            "application/json",
        )

    @api.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> Response:
        # Without the values, which may be prompts.
        problem = error.errors()[0]
        param = str(problem["loc"][-1])
        return Response(
            error_json(f"{param}: {problem['msg']}", "invalid_request_error", "invalid_parameter", param),
            422,
            media_type="application/json",
        )

    @api.exception_handler(ClientDisconnect)
    async def client_left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED)

    @api.exception_handler(Exception)
    async def bug(_: Request, __: Exception) -> Response:
        # The server logs the traceback; the client does not get it.
        body = error_json("the relay failed; its log says why", "server_error", "internal_error")
        return Response(body, 500, media_type="application/json")
