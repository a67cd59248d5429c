"""Headers of a request, copied one by one to the one that is made of it. Each name stays."""

from asgi import service
from multidict import CIMultiDict


def headers():
    for _ in range(60):
        came = CIMultiDict({f"X-Any-{number}": str(number) for number in range(10)})
        sent = CIMultiDict()
        for name, value in came.items():
            sent.add(name, value)


app = service(headers)
