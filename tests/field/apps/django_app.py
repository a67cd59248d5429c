"""Django in one file, as its own documentation shows it: one view that streams Server-Sent Events, one that answers."""

import asyncio

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="field", ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)


async def events(request, count):
    async def pieces():
        for number in range(count):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.05)

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def index(request):
    return HttpResponse("ready\n", content_type="text/plain")


urlpatterns = [path("", index), path("events/<int:count>", events)]
application = get_asgi_application()
