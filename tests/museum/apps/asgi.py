"""An ASGI app that does one piece of work for each request, whatever its path; `/` is answered without."""

import inspect


def service(work):
    async def app(scope, receive, send):
        if scope["path"] != "/":
            outcome = work()
            if inspect.isawaitable(outcome):
                await outcome
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"ok\n"})

    return app
