"""Messages with tuples of more than sixteen items, decoded."""

import msgspec
from asgi import service


class Sample(msgspec.Struct):
    values: tuple[int, ...]


decoder = msgspec.msgpack.Decoder(type=Sample)
message = msgspec.msgpack.Encoder().encode(Sample(tuple(range(100, 1100))))


def decode():
    decoder.decode(message)


app = service(decode)
