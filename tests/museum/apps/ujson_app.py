"""Documents with integers beyond 64 bits, parsed."""

import ujson
from asgi import service

document = "[" + ",".join(["1" * 60] * 50) + "]"


def parse():
    for _ in range(20):
        ujson.loads(document)


app = service(parse)
