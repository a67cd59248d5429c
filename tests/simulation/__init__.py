"""The relay on a simulated event loop: virtual time, a simulated network, and after every step its bytes are counted.

    make simulate                                  as many seeds as SECONDS allow, and the table of docs/reliability.md
    .simulation/.../python -m tests.simulation --seed 17     one seed again

A seed decides the order in which ready callbacks run, the delay of each packet, the mix of clients, and what the upstream does
wrong. It replays exactly, and one that fails is shrunk to the steps that had to go wrong. Python 3.12 or later, in an
environment of its own: the simulator, simloop, is not for 3.11.

virtual.py   the clock of the process, before anything of the relay is imported
world.py     the relay, its upstream and its clients on the simulated network
truth.py     what must hold after every step, and at the end
run.py       seeds, the record of what was run, the table
"""
