"""SSE by Tornado: `python tornado_app.py PORT`."""

from __future__ import annotations

import asyncio
import sys

import tornado.web
import tornado.websocket


class Events(tornado.web.RequestHandler):
    chunk, pause = b"data: tick\n\n", 0.05

    async def get(self, user: str = "") -> None:
        self.set_header("Content-Type", "text/event-stream")
        while True:
            self.write(self.chunk)
            await self.flush()
            await asyncio.sleep(self.pause)


class Flood(Events):
    chunk, pause = b"data: " + b"x" * 100_000 + b"\n\n", 0


class Slow(tornado.web.RequestHandler):
    async def get(self) -> None:
        await asyncio.sleep(600)


class Talk(tornado.websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        pass


async def main(port: int) -> None:
    tornado.web.Application(
        [(r"/stream/(?P<user>[^/]+)", Events), (r"/flood", Flood), (r"/slow", Slow), (r"/socket", Talk)]
    ).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
