"""A batch of many small messages is read and dropped again and again; a few of each are kept for a while. What is free stays
resident where the allocator does not give it back."""

from asgi import service
from google.protobuf.struct_pb2 import ListValue, Struct


def small():
    made = Struct()
    made.update({f"field{number}": f"value {number}" for number in range(12)})
    return made.SerializeToString()


message = small()
kept = []
rounds = 0


def batch():
    global rounds
    rounds += 1
    if rounds % 40 == 1:
        parsed = [Struct.FromString(message) for _ in range(15_000)]
        kept.append(parsed[::1500])
        if len(kept) > 4:
            del kept[0]
        del parsed
    ListValue()


app = service(batch)
