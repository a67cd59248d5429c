"""Messages whose size is asked for before they are sent."""

from asgi import service
from google.protobuf.type_pb2 import Type

message = Type()


def sizes():
    for _ in range(300):
        message.source_context.ByteSize()


app = service(sizes)
