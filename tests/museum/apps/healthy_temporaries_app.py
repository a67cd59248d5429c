"""Ten megabytes of temporaries for each request, made and dropped."""

import json

from asgi import service

document = json.dumps([{"name": f"item {number}", "text": "x" * 100} for number in range(12_000)])


def parse():
    json.loads(document)


app = service(parse)
