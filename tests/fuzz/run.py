"""`make fuzz`: mangles inputs of every reader for SECONDS each, guided by coverage where atheris is installed.

An input that a reader does not bear is written to tests/fuzz/corpora/READER, where every run of the suite tries it from then
on, and the exit code is 1. Without atheris inputs are mangled at random, from a seed that is printed.

    make fuzz                          a minute for each reader
    make fuzz SECONDS=3600 READER=profile
    .venv/bin/pip install atheris      coverage-guided from then on
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

if "--guided" in sys.argv:
    import atheris

    watched = atheris.instrument_imports(include=["diagnostics", "json", "tomllib"])
else:
    watched = nullcontext()
with watched:
    from readers import READERS
    from seeds import CORPORA, seeds

    from diagnostics.errors import DiagnosticsError
    from tests.fuzz.tally import add, counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--reader", choices=sorted(READERS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--guided", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.guided:
        _guided(arguments.guided, arguments.seconds)
    failed = 0
    for name in [arguments.reader] if arguments.reader else READERS:
        if find_spec("atheris"):
            command = [sys.executable, __file__, "--guided", name, "--seconds", str(arguments.seconds)]
            failed += not counted(name, command)
        else:
            failed += not _at_random(name, arguments.seconds, arguments.seed)
    return 1 if failed else 0


def _tried(name: str, data: bytes) -> None:
    """Raises what the reader should not, with the input kept."""
    try:
        with suppress(DiagnosticsError):
            READERS[name](data)
    except BaseException:
        folder = CORPORA / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(data).hexdigest()[:16]
        path.write_bytes(data)
        print(f"{name} does not bear {path}", flush=True)
        raise


def _at_random(name: str, seconds: float, seed: int) -> bool:
    choose = random.Random(f"{seed} {name}")
    kept, began, count = seeds(name), time.monotonic(), 0
    while time.monotonic() < began + seconds:
        out = bytearray(choose.choice(kept))
        for _ in range(choose.randint(1, 8)):
            at, other = choose.randint(0, len(out)), choose.choice(kept)
            new = choose.choice((choose.randbytes(choose.randint(0, 9)), other[choose.randint(0, len(other)) :][:64]))
            out[at : at + choose.randint(0, 9)] = new
        count += 1
        try:
            _tried(name, bytes(out))
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            print(f"{name}: {error!r} after {count} inputs, seed {seed}", flush=True)
            add(name, count, time.monotonic() - began, guided=False, failed=True)
            return False
    print(f"{name}: {count} inputs in {seconds:g} s, seed {seed}", flush=True)
    add(name, count, seconds, guided=False, failed=False)
    return True


def _guided(name: str, seconds: float) -> None:
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(name)):
            Path(folder, str(number)).write_bytes(data)
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={seconds:.0f}", "-max_len=65536", "-print_final_stats=1", folder],
            lambda data: _tried(name, data),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
