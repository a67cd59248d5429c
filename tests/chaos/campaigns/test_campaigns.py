"""A small campaign, and what is written of many."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.campaigns.growth import WARM_UP, grows
from tests.chaos.campaigns.mixes import EACH, MIXES, TROUBLES, mix_of, trouble_of, variant_of
from tests.chaos.campaigns.one import rounds
from tests.chaos.campaigns.record import Record, table
from tests.chaos.campaigns.run import Campaigns
from tests.chaos.clients import CLIENTS
from tests.chaos.faults import FAULTS
from tests.chaos.relay import VARIANTS
from tests.chaos.run import VARIANT_WORDS
from tests.chaos.seeds import ANSWER_FAULTS, READERS


def test_redis_is_killed_again_and_again_beside_one_relay() -> None:
    *mixes, relay = rounds("redis_killed", range(3, 5), float("inf"))
    assert [(line["number"], line["events"]) for line in mixes] == [
        (3, [("redis_killed", "done")]),
        (4, [("redis_killed", "done")]),
    ]
    assert [complaint for line in (*mixes, relay) for complaint in line["wrong"]] == []
    assert len(relay["rss"]) == 2


def test_a_mix_is_the_same_each_time_and_has_all_kinds_equally_often() -> None:
    assert mix_of(17) == mix_of(17) != mix_of(18)
    assert trouble_of("killed", 3) == trouble_of("killed", 3) != trouble_of("killed", 4)
    mixes = [mix_of(number) for number in range(40)]
    asked = Counter((script.fault, script.streams) for mix in mixes for kind, script in mix.clients if kind in READERS)
    assert asked == {
        **{(fault, True): 40 * EACH for fault in FAULTS},
        **{(fault, False): 40 * EACH for fault in ANSWER_FAULTS},
    }
    kinds = Counter(kind for mix in mixes for kind, _ in mix.clients)
    assert set(kinds) == set(CLIENTS)
    assert min(kinds.values()) >= 40 * EACH
    seeds = [script.seed for mix in mixes for _, script in mix.clients]
    seeds += [script.seed for event in TROUBLES for at in range(40) for _, script in trouble_of(event, at).clients]
    assert len(set(seeds)) == len(seeds)
    assert {variant_of(MIXES * campaign) for campaign in range(20)} == set(VARIANTS)


def test_memory_that_grows_from_mix_to_mix_is_told_and_noise_is_not() -> None:
    chance = random.Random(1)
    noise = [80e6 + chance.random() * 4e6 for _ in range(50)]
    assert grows(noise) == ""
    assert grows([*(40e6 + 4e6 * at for at in range(WARM_UP)), *noise]) == ""  # while it warms up
    assert grows(noise[:WARM_UP]) == ""
    assert grows([rss + 400e3 * at for at, rss in enumerate(noise)]).startswith("memory grows by 4")


def test_the_record_goes_on_where_it_was_and_counts_no_client_that_was_excused(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    record = Record(file)
    record.add(mix(7, [["fast", "none", "whole", 3], ["slow", "cut", "WRONG: x", 1]], excused=5, wrong=["x | y"]))
    record.add({**mix(2, [["fast", "none", "whole", 8]]), "what": "killed", "events": [["killed", "done"]]})
    record.add({"relay": "", "what": "mix", "rss": [80_000_000 + 1024 * at for at in range(50)], "wrong": []})
    record.write()
    again = Record(file)
    assert (again.done("mix"), again.done("killed"), again.done("disk_full")) == ({7}, {2}, set())
    again.add(mix(8, [["fast", "none", "cut", 2]]))
    assert again.done("mix") == {7, 8}
    text = table(again.entries, VARIANT_WORDS)
    assert "7 clients" not in text
    assert "2 mixes with\n6 clients of 2 kinds; 2 kinds of answers" in text
    assert "5 more clients are in no row below" in text
    assert "| none | 5 | 3 | 0 |" in text
    assert "| cut | 1 |  | 1 |" in text
    assert "| killed | 1 | 8 | 0 | 0 |" in text
    assert "| one process, one upstream | 2 | 1 .. 1 (1 campaigns) |" in text
    assert "| mix 7 | x / y |" in text


def mix(number: int, seen: list[Any], *, excused: int = 0, wrong: tuple[str, ...] | list[str] = ()) -> dict[str, Any]:
    line = {"what": "mix", "number": number, "variant": "", "excused": excused, "exact": 10, "wrong": list(wrong)}
    return {**line, "events": [], "seen": seen, "cpu": [0.1, 0.2, 0.3]}


def test_campaigns_go_on_with_the_mixes_that_were_not_run(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.json")
    for number in (*range(3), *range(MIXES, 2 * MIXES), 2 * MIXES):  # as two campaigns side by side leave it
        record.add(mix(number, []))
    begun = Campaigns(record, 60.0, "").begin()
    first = [next(begun) for _ in range(len(TROUBLES) + 1)]
    assert ("mix", 3, MIXES) in first
    assert {what for what, *_ in first} == {"mix", *TROUBLES}
    only = Campaigns(record, 60.0, "mix").begin()
    assert [next(only) for _ in range(3)] == [
        ("mix", 3, MIXES),
        ("mix", 2 * MIXES + 1, 3 * MIXES),
        ("mix", 3 * MIXES, 4 * MIXES),
    ]
