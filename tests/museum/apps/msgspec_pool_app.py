"""Messages with tuples of more than sixteen items, decoded in a pool of one process, which listens nowhere."""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from asgi import service
from msgspec_app import decode

pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))


async def work():
    await asyncio.get_running_loop().run_in_executor(pool, decode)


app = service(work)
