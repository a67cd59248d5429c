"""A big and constant load: a working set of 150 MB that is replaced piece by piece, all the time."""

import itertools

from asgi import service

numbers = itertools.count()
window = [bytearray(150_000) for _ in range(1_000)]


def replace():
    for _ in range(10):
        window[next(numbers) % len(window)] = bytearray(150_000)


app = service(replace)
