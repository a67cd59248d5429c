"""`python -m tests.parsers TARGET [SECONDS]`: atheris on one of the checks, for a minute or so many seconds.

It begins with the corpus that is kept here, and keeps what it learns in report/parsers. What fails is put into the kept corpus,
where test_parsers.py runs it again for ever after it was mended. How many inputs it ran goes into tests/fuzz/tally.json.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.tally import counted

CORPUS = Path(__file__).parent / "corpus"
GUIDED = "--guided"
# An input is read in pieces of 1 to 16 bytes, three times over: one of kilobytes costs as much as twenty of these, and has
# nothing that two of these have not. Rather many inputs than long ones.
MOST_BYTES = 256


def main() -> int:
    target, seconds, *rest = [*sys.argv[1:], "60"] if len(sys.argv) == 2 else sys.argv[1:]
    if GUIDED not in rest:
        return not counted(target, [sys.executable, "-m", "tests.parsers", target, seconds, GUIDED])
    fuzz(target, seconds)
    return 0


def fuzz(target: str, seconds: str) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["relay.protocol", "relay.upstream.wire"]):
        from tests.parsers import http, sse
    check = {"sse": sse.check, "http": http.check}[target]
    learned, kept = Path("report/parsers") / target, CORPUS / target
    learned.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={kept}/",
        f"-max_len={MOST_BYTES}",
        "-print_final_stats=1",
    ]

    def once(data: bytes) -> None:
        check(data)

    atheris.Setup([sys.argv[0], *options, str(learned), str(kept)], once)
    atheris.Fuzz()


sys.exit(main())
