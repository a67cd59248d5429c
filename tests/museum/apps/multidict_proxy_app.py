"""Headers of a request, which is shown them by a proxy, copied for the one that is made of it. The proxy stays."""

from asgi import service
from multidict import CIMultiDict, CIMultiDictProxy

came = CIMultiDict({f"X-Any-{number}": str(number) for number in range(20)})


def headers():
    for _ in range(600):
        CIMultiDict(CIMultiDictProxy(came))


app = service(headers)
