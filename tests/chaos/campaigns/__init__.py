"""Campaigns: many mixes on one relay, which has to hold nothing after each, and whose memory must not grow over all of them.

    python -m tests.chaos.campaigns --seconds 3600 --write docs/reliability.md   goes on with the mixes that were not run yet
    python -m tests.chaos.campaigns --again mix:17        one mix again, alone, on a relay of its own
    python -m tests.chaos.campaigns --again killed:17     what happens to the machine, likewise

A mix has each kind of answer of the upstream and each kind of client several times, so that all kinds are run equally often. It
costs its clients alone, since relay, upstream, Redis and collector are started once for all mixes of a campaign. Troubles are
small mixes of their own, beside each of which one thing happens to the machine.

mixes.py    which clients a mix has: all of it follows from its number
one.py      one campaign, a process of its own
growth.py   whether memory grows from mix to mix
record.py   what was run so far, by whichever code and on whichever day: record.json, which is committed, and its table
run.py      campaigns side by side, until the time is up
"""
