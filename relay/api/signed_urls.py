"""The route that makes signed URLs: POST /v1/signed-urls. It is there only where RELAY_URL_SECRETS is set.

The body is JSON: `{"topic": NAME}` or `{"stream": ID}`, and `"seconds"`, how long the URL is good for: from 1 to
RELAY_URL_SECONDS, which it is where it is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ..admission.keys import CALLER, TOPICS
from ..admission.signed import Signing
from ..errors import BadRequestError
from ..resume.ids import STREAM_ID
from .bodies import Bodies
from .resume import STREAM_REST
from .topics import NAME

__all__ = ["SIGNED_URLS", "add_signed_urls"]

SIGNED_URLS: Final = "/v1/signed-urls"
MOST_BODY_BYTES: Final = 1024
# What a URL may be for: the form of its name, and its path.
TARGETS: Final = {
    "topic": (re.compile(NAME.removeprefix("^").removesuffix("$")), f"{TOPICS}{{}}"),
    "stream": (re.compile(STREAM_ID), STREAM_REST.replace("{stream_id}", "{}")),
}


def add_signed_urls(
    api: FastAPI, signing: Signing, longest: int, admit: Callable[[Request], Awaitable[None]], bodies: Bodies
) -> None:
    """Add the route. `longest`: seconds that a URL may be good for; `admit` as in add_topics."""

    @api.post(SIGNED_URLS)
    async def sign(request: Request) -> Response:
        await admit(request)
        path, seconds = _wanted(await bodies.read(request, MOST_BODY_BYTES), longest)
        signed = signing.sign(request.scope[CALLER], path, seconds)
        return JSONResponse(
            {"url": signed.url, "expires": signed.expires}, status_code=201, headers={"cache-control": "no-store"}
        )


def _wanted(body: bytes, longest: int) -> tuple[str, int]:
    """The path and the seconds that a body asks for. Raises BadRequestError."""
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(fields, dict) or not fields.keys() <= {*TARGETS, "seconds"}:
        raise BadRequestError('the body must be {"topic": NAME} or {"stream": ID}, and may have "seconds"')
    wanted = [target for target in TARGETS if target in fields]
    if len(wanted) != 1:
        raise BadRequestError("the body must have one of topic and stream")
    target = wanted[0]
    form, path = TARGETS[target]
    name, seconds = fields[target], fields.get("seconds", longest)
    if not isinstance(name, str) or not form.fullmatch(name):
        raise BadRequestError(f"{target} is not the {'name' if target == 'topic' else 'id'} of one", param=target)
    if type(seconds) is not int or not 1 <= seconds <= longest:
        raise BadRequestError(f"seconds must be a whole number from 1 to {longest}", param="seconds")
    return path.format(name), seconds
