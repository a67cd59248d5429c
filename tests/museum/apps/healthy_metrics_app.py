"""Labels that are bounded: three hundred routes, each of which is seen sooner or later."""

import random

from asgi import service
from prometheus_client import Counter, Histogram

requests = Counter("requests", "requests", ["route", "status"])
seconds = Histogram("seconds", "seconds", ["route"])
chosen = random.Random(1)


def work():
    for _ in range(3):
        route = f"/route/{chosen.randrange(300)}"
        requests.labels(route, str(chosen.choice([200, 404, 500]))).inc()
        seconds.labels(route).observe(chosen.random())


app = service(work)
