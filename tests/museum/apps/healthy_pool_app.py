"""A pool of threads that warms up: now and then work takes longer, and one more thread is started, until there are forty."""

import asyncio
import itertools
import time
from concurrent.futures import ThreadPoolExecutor

from asgi import service

numbers = itertools.count()
pool = ThreadPoolExecutor(40)


def piece(seconds):
    text = "x" * 300_000
    time.sleep(seconds)
    return len(text)


async def work():
    number = next(numbers)
    await asyncio.get_running_loop().run_in_executor(pool, piece, 0.3 if number % 10 == 0 else 0.01)


app = service(work)
