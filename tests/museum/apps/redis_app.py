"""A client of Redis for each request, closed after it. The parser and its reader in C hold each other."""

import os

from asgi import service
from redis.asyncio import Redis


async def visit():
    client = Redis.from_url(os.environ["MUSEUM_UPSTREAM"].replace("http:", "redis:"))
    await client.set("visited", "yes")
    await client.get("visited")
    await client.close()


app = service(visit)
