"""A schema that is made for each request, under the same name each time. The registry of classes keeps all of them."""

from asgi import service
from marshmallow import Schema, fields


def validate():
    for _ in range(4):
        schema = type("MessageSchema", (Schema,), {"name": fields.Str(), "size": fields.Int()})
        schema().load({"name": "a", "size": 1})


app = service(validate)
