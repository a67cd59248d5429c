"""Synchronous code in a greenlet for each request, as SQLAlchemy's asyncio layer runs it. The stack of its frames stays."""

from asgi import service
from greenlet import greenlet


def below(depth):
    return below(depth - 1) if depth else depth


def work():
    for _ in range(3):
        greenlet(below).switch(5)


app = service(work)
