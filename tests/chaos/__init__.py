"""Chaos: a real relay between clients and an upstream that do what they should not, in mixes that a seed decides.

    python -m tests.chaos                 a thousand seeds; goes on where it was when it is started again
    python -m tests.chaos --seed 17       one seed again, with every client told
    python -m tests.chaos --write docs/reliability.md     the table of what has been run so far

campaigns/    many mixes on one relay: what `make chaos` runs
payload.py    what a stream says: every byte of it follows from its seed
faults.py     what the upstream does wrong
upstream.py   the upstream: raw sockets, in a process of its own
clients/      what clients do, and what they may see
events.py     what happens to the relay and its machine meanwhile
machine.py    what the kernel refuses: room on the disk, processes, descriptors
surroundings.py  the processes around relays, and how they are killed; otlp.py is one
relay.py      the relay under test, its processes, and what it still holds
seeds.py      one seed: its mix, and what must be true afterwards
run.py        many seeds, the journal, the table
"""
