"""Pushes as Pyroscope takes them: gzipped pprof as the body of POST /ingest, what it is of in the query.

    POST /ingest?name=shop%7Bhostname%3Dweb-1%2Cworker%3D0%7D&from=1790000000&until=1790000060&format=pprof&spyName=highwater

A receiver of pprof that knows no such query has the whole profile in the body all the same. Source: "Ingestion" in
https://grafana.com/docs/pyroscope/latest/reference-server-api/ (the body alone, not the multipart form: its sample type
configuration is for types that Go's profiles do not have, and ours are Go's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...analysis.formats import pprof
from ...analysis.profile import Profile
from .payload import Payload, Source

__all__ = ["Pyroscope", "name_with_labels"]

# Pyroscope refuses a name with other characters; in a label's value `,` and `}` would end it.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_./-]")
_NOT_IN_VALUES = re.compile(r"[^A-Za-z0-9_./:-]")


class Pyroscope:
    def payload(self, profile: Profile, source: Source, seconds: float) -> Payload:
        until = int(profile.time)
        query = {
            "name": name_with_labels(source.name, {"hostname": source.host, "worker": source.worker}),
            "from": str(until - max(1, round(seconds))),
            "until": str(until),
            "format": "pprof",
            "spyName": "highwater",
        }
        return Payload(source.worker, pprof.encode(profile), "application/octet-stream", tuple(query.items()))

    def objection(self, answer: bytes) -> str | None:
        """Its answer to what it has taken says nothing."""
        return None


def name_with_labels(name: str, labels: Mapping[str, str]) -> str:
    """`name{label=value,...}`; characters that Pyroscope does not take are `_`."""
    pairs = ",".join(f"{label}={_NOT_IN_VALUES.sub('_', value)}" for label, value in labels.items())
    return f"{_NOT_IN_NAMES.sub('_', name)}{{{pairs}}}"
