"""Headers of a request, of which some are taken out again before it is passed on. What was taken out stays."""

import itertools

from asgi import service
from multidict import CIMultiDict

numbers = itertools.count()


def hop():
    for _ in range(20):
        made = CIMultiDict({"Host": "here", "Connection": "close"})
        made["X-Token"] = f"token {next(numbers)} " + "x" * 500
        del made["X-Token"]


app = service(hop)
