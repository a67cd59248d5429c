"""Clients, what each kind does and may see.

mix.py         what a client is given, how it reads an answer, and how that is judged
letting_go.py  whether the relay has let go of a client, as the kernel tells
kinds.py       a coroutine for each kind of client, in a table
"""

from .kinds import CLIENTS
from .letting_go import PATIENCE_SECONDS
from .mix import Mix, Wrong, judge, read_response

__all__ = ["CLIENTS", "PATIENCE_SECONDS", "Mix", "Wrong", "judge", "read_response"]
