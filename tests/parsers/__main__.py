"""`python -m tests.parsers TARGET [SECONDS]`: atheris on one of the checks, for a minute or so many seconds.

It begins with the corpus that is kept here, and keeps what it learns in report/parsers. What fails is put into the kept corpus,
where test_parsers.py runs it again for ever after it was mended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["relay.protocol", "relay.upstream.wire"]):
    from tests.parsers import http, sse

TARGETS = {"sse": sse.check, "http": http.check}
CORPUS = Path(__file__).parent / "corpus"
SECONDS = "60"


def main() -> None:
    target = sys.argv[1]
    check = TARGETS[target]
    learned, kept = Path("report/parsers") / target, CORPUS / target
    learned.mkdir(parents=True, exist_ok=True)
    seconds = sys.argv[2] if len(sys.argv) > 2 else SECONDS
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={kept}/", "-max_len=4096", "-print_final_stats=1"]

    def once(data: bytes) -> None:
        check(data)

    atheris.Setup([sys.argv[0], *options, str(learned), str(kept)], once)
    atheris.Fuzz()


main()
