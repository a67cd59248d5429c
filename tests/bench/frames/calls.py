"""Calls of a function that does nothing: python calls.py CALLS [SIGNAL]. With and without notes they tell what a note adds."""

import os
import sys


def nothing() -> None:
    pass


def many(calls: int) -> None:
    for _ in range(calls):
        nothing()


calls = int(sys.argv[1])
switch = [int(number) for number in sys.argv[2:]]
for _ in range(2):
    many(1000)  # until the interpreter has specialised them
for number in switch:
    os.kill(os.getpid(), number)
many(calls)
for number in switch:
    os.kill(os.getpid(), number)
