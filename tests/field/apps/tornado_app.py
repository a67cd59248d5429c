"""Tornado: a handler that writes and flushes."""

import asyncio
import sys

import tornado.iostream
import tornado.log
import tornado.web


class Index(tornado.web.RequestHandler):
    def get(self):
        self.write("ready\n")


class Events(tornado.web.RequestHandler):
    async def get(self, count):
        self.set_header("Content-Type", "text/event-stream")
        try:
            for number in range(int(count)):
                self.write(f"data: {number}\n\n")
                await self.flush()
                await asyncio.sleep(0.05)
        except tornado.iostream.StreamClosedError:
            pass


async def main():
    tornado.log.enable_pretty_logging()
    app = tornado.web.Application([("/", Index), (r"/events/(\d+)", Events)])
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
