"""Garbage in circles: each request leaves some that only the collector finds."""

from asgi import service


class Node:
    def __init__(self, peer=None):
        self.peer, self.text = peer, "x" * 4_000


def circle():
    for _ in range(10):
        first = Node()
        first.peer = Node(first)


app = service(circle)
