"""Pushes the live heap of each worker to a receiver of profiles, at an interval. Off unless DIAGNOSTICS_PROFILES_URL is set.

    destination.py   where to, how often, and with which headers: the settings
    waiting.py       what is not sent yet: bounded, and the newest stays
    telling.py       what the log is told of a receiver that takes nothing: once
    payload.py       what one push is, and what its sender is called
    pyroscope.py     as gzipped pprof, with the query of Pyroscope's POST /ingest
    otlp.py          as an ExportProfilesServiceRequest, for POST /v1development/profiles
    posting.py       one POST, its deadline, and what its answer means
    exporter.py      the two loops: one makes profiles, one sends them

Only what is alive is sent, no sums since the start: a receiver adds up what comes, and would count each allocation again.
"""
