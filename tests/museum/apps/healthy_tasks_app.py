"""Tasks that outlive their request by half a minute, on purpose: each looks after something, then ends."""

import asyncio

from asgi import service

running = set()


async def look_after():
    await asyncio.sleep(30)


async def work():
    task = asyncio.create_task(look_after())
    running.add(task)
    task.add_done_callback(running.discard)


app = service(work)
