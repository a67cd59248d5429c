"""`python -m tests.parsers TARGET [SECONDS] [--at-random]`: inputs for one of the checks, for a minute or so many seconds.

atheris makes them, or with --at-random generate.py. Both begin with the corpus that is kept here; what atheris learns is kept
in report/parsers. What fails is put into the kept corpus, where test_parsers.py runs it again for ever after it was mended. How
many inputs were run goes into tests/fuzz/tally.json.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from tests.fuzz.tally import add, counted

from .generate import GENERATORS

CORPUS = Path(__file__).parent / "corpus"
GUIDED, AT_RANDOM = "--guided", "--at-random"
# An input is read in pieces of 1 to 16 bytes: one of kilobytes costs as much as many short ones, which have as much in them.
MOST_BYTES = 256


def main() -> int:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    target, seconds = words[0], words[1] if len(words) > 1 else "60"
    if AT_RANDOM in sys.argv:
        return 0 if at_random(target, float(seconds), random.SystemRandom().randrange(2**32)) else 1
    if GUIDED not in sys.argv:
        return not counted(target, [sys.executable, "-m", "tests.parsers", target, seconds, GUIDED])
    fuzz(target, seconds)
    return 0


def at_random(target: str, seconds: float, seed: int) -> bool:
    """Whether the check bears all inputs of that seed that fit into the time."""
    from tests.parsers import http, sse

    check, make = {"sse": sse.check, "http": http.check}[target], GENERATORS[target]
    others = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    chance, began, count = random.Random(seed), time.monotonic(), 0
    while time.monotonic() < began + seconds:
        data = make(chance, others)
        count += 1
        try:
            check(data)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            path = CORPUS / target / hashlib.sha256(data).hexdigest()[:16]
            path.write_bytes(data)
            print(f"{target}: {error!r}\nis kept in {path}; input {count} of seed {seed}", flush=True)
            add(target, count, time.monotonic() - began, guided=False, failed=True)
            return False
    print(f"{target}: {count:,} inputs at random in {seconds:g} s, seed {seed}", flush=True)
    add(target, count, time.monotonic() - began, guided=False, failed=False)
    return True


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
