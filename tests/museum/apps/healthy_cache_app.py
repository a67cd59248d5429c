"""A cache that fills to its bound within the first minute or two, and stays there."""

import functools
import itertools

from asgi import service

numbers = itertools.count()


@functools.lru_cache(maxsize=1500)
def page(number):
    return [f"{number}: {line} " + "x" * 200 for line in range(60)]


app = service(lambda: page(next(numbers)) and None)
