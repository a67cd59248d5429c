"""A push as Pyroscope's POST /ingest takes it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from diagnostics.analysis.formats import pprof
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.monitor.export.payload import Source
from diagnostics.monitor.export.pyroscope import Pyroscope, name_with_labels

PROFILE = Profile(
    "heap", (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count")),
    (Sample((Frame("Cache.fill", "/srv/app.py", 41),), (1000, 2), (("age", "under 1 min"),)),),
    time=1_790_000_060.4, duration=0.0, meta={"sampled": {"rate_bytes": 524288}},
)  # fmt: skip


def test_the_body_is_the_profile_and_the_query_says_whose_and_when() -> None:
    payload = Pyroscope().payload(PROFILE, Source("shop", "web-1", "3", 7), 60.0)
    assert dict(payload.query) == {
        "name": "shop{hostname=web-1,worker=3}", "from": "1790000000", "until": "1790000060", "format": "pprof",
        "spyName": "highwater",
    }  # fmt: skip
    assert pprof.decode(payload.body).samples == PROFILE.samples
    assert payload.body.startswith(pprof.GZIP_MAGIC)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_name_and_host_are_ones_that_pyroscope_takes(name: str, host: str) -> None:
    # What pyroscope's labelset.Parse accepts: a name of these characters, and values without what ends them.
    made = name_with_labels(name or "unknown_service", {"hostname": host, "worker": "0"})
    assert re.fullmatch(r"[A-Za-z0-9_./-]+\{hostname=[^,}]*,worker=0\}", made)
