"""A validator of a recursive model for each request. Rust keeps the definitions of each, in a circle of counted references."""

from asgi import service
from pydantic import BaseModel, TypeAdapter


class Bar(BaseModel):
    name: str = "bar"


class Foo(BaseModel):
    children: list["Foo"]
    bar: Bar


def validate():
    for _ in range(5):
        TypeAdapter(list[Foo]).validate_python([{"children": [], "bar": Bar()}])


app = service(validate)
