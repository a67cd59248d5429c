"""A fleet of clients for `diagnostics load`: many streams at once, from several processes, counted and not kept.

    order.py    what is asked: the URL, how many, how fast, and which share of the clients misbehaves how
    worker.py   one process of the fleet: its schedule, its own CPU share
    launch.py   starts the processes, shows how far they are, adds them up

Latency is counted from when a stream was meant to begin. With a rate that moment is fixed before the run, so a service
that stalls is charged for the streams that had to wait meanwhile; a client that asks again only when it has been answered
would leave them out (coordinated omission, as Gil Tene named it).
"""
