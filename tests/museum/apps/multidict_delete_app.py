"""Headers of a request that are taken out one by one until none is left. The table that they were in stays."""

from asgi import service
from multidict import CIMultiDict

came = {f"X-Any-{number}": str(number) for number in range(30)}


def headers():
    for _ in range(15):
        left = CIMultiDict(came)
        for name in came:
            left.pop(name)


app = service(headers)
