"""Headers of a request, made and dropped. Each name that is looked up stays."""

from asgi import service
from multidict import CIMultiDict


def headers():
    for _ in range(200):
        made = CIMultiDict({"User-Agent": "test", "Accept": "*/*", "X-Request-Id": "1"})
        made.get("User-Agent")


app = service(headers)
