"""A model with a lazy field, made and dropped. Its validator's iterator is in a circle that the collector cannot see."""

from collections.abc import Iterable

from asgi import service
from pydantic import BaseModel


class Trace(BaseModel):
    elements: Iterable[int]


def validate():
    for _ in range(25):
        Trace(elements=list(range(50)))


app = service(validate)
