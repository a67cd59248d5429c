"""Devices are looked for in the network at each request, by a client that is started and stopped for it. Its threads stay."""

import asyncio

from asgi import service
from wsdiscovery.discovery import ThreadedWSDiscovery


def look():
    client = ThreadedWSDiscovery()
    client.start()
    client.stop()


async def work():
    await asyncio.get_running_loop().run_in_executor(None, look)


app = service(work)
