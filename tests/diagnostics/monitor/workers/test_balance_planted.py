"""A known amount planted in each part of a live service's memory moves that part by the amount, and no other part.

With `-s` it prints the table of docs/balance.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SERVICE = (Path(__file__).parent / "planted.py").read_text(encoding="utf-8")
# What is planted, in this order, and the part that it belongs to. Tracers come last: while one runs, pymalloc does not tell.
PLANTED = {
    "python_live": "python_live",
    "malloc_live": "malloc_live",
    "malloc_mapped": "malloc_live",
    "malloc_free": "malloc_free",
    "mapped_files": "mapped_files",
    "stacks": "stacks",
    "other": "other",
    "python_free": "python_free",
    "tracers": "tracers",
}
# What is done before: free memory is given back, or a later planting would only use it.
PREPARED = {"python_live": "/tidy", "mapped_files": "/tidy", "tracers": "/plant/tracing"}
UNKNOWN = {"tracers": ["python_live", "python_free"]}
TOLERANCE = 0.05
ELSEWHERE = 5_000_000

Balance = dict[str, Any]


@pytest.fixture
def balance_now(http: Any, eventually: Any) -> Callable[[Any], Balance]:
    """The balance of the service's one worker, read after the call."""

    def read(service: Any) -> Balance:
        asked = time.time()

        def fresh() -> Balance | None:
            (worker,) = http(f"{service.monitor}/debug/memory/balance").json()["workers"]
            balance: Balance = worker["balance"]
            return balance if balance["time"] - balance["cost_seconds"] > asked and balance["agent"] else None

        found: Balance = eventually(fresh)
        return found

    return read


def test_what_is_planted_is_found_in_its_part_and_nowhere_else(
    observed: Any, http: Any, balance_now: Callable[[Any], Balance]
) -> None:
    service = observed(SERVICE)
    wrong, others = [], {}
    print()
    after: Balance = {}
    for name, part in PLANTED.items():
        if name in PREPARED:
            http(service.url + PREPARED[name])
            after = balance_now(service)
        before = after
        planted = http(f"{service.url}/plant/{name}").json()["planted"]
        after = balance_now(service)
        assert [key for key, held in after["parts"].items() if held is None] == UNKNOWN.get(name, [])
        moved = {key: held - before["parts"][key] for key, held in after["parts"].items() if held is not None}
        here = moved.pop(part)
        elsewhere = max(moved, key=lambda key: abs(moved[key]))
        others[name] = after["parts"]["other"] / after["rss_bytes"]
        row = f"| {name} | {part} | {planted:,} | {here:,} | {here / planted - 1:+.1%} | {moved[elsewhere]:+,} {elsewhere} |"
        print(row)
        assert sum(filter(None, after["parts"].values())) == after["rss_bytes"]
        if abs(here - planted) > TOLERANCE * planted or abs(moved[elsewhere]) > ELSEWHERE:
            wrong.append(row)
    # Until something is planted there, what belongs to nobody is a small share.
    largest = max(share for name, share in others.items() if list(PLANTED).index(name) < list(PLANTED).index("other"))
    print(f"other, at most: {largest:.1%} of RSS")
    assert not wrong, "\n".join(wrong)
    assert largest <= 0.10
