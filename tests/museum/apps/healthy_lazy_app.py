"""Loads a table of a few megabytes for each of thirty tenants when it is first asked for, and no more after."""

import itertools

from asgi import service

numbers = itertools.count()
tables = {}


def tenant():
    number = next(numbers)
    name = number // 15 % 30
    if name not in tables:
        tables[name] = {key: f"value {key}" for key in range(12_000)}


app = service(tenant)
