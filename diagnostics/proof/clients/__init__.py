"""Streaming clients over real sockets.

    address.py     where a request goes and how it is written
    mix.py         how clients behave, and which of them come
    eventscan.py   events in a stream of bytes
    tally.py       what clients saw, and the words for how a stream ends
    stream.py      one stream of one client, for every load
    load.py        a mix of clients in this process, for experiments
    fleet/         many clients in several processes, for `diagnostics load`
    probe.py       one stream, looked at step by step
    verdicts.py    what a probe means

Each imports only those above it.
"""
