"""What a peer can send, against second implementations: the event stream against the standard's text, HTTP answers against h11.

sse.py, http.py   a check each: bytes in, AssertionError where the two disagree on something that matters
test_parsers.py      both with hypothesis, for seconds, in `make test`
__main__.py       both with atheris, and at random (generate.py), for as long as is wanted: `make fuzz-parsers`
"""
