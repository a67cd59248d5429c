"""What campaigns have run so far: record.json, committed, an entry for each day and each state of the code; and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests import counting
from tests.fuzz.tally import code, today

from ..faults import HARMLESS
from .growth import LEAST, WARM_UP, slope

__all__ = ["FILE", "MARKS", "Record", "table"]

FILE = Path(__file__).parent / "record.json"
MARKS = ("<!-- campaigns: written by make chaos -->", "<!-- end of campaigns -->")
# Clients, or seeds, of each kind.
AIM = 1000
WRONG_KEPT = 300


class Record:
    """The entries of a file. `done` says which mixes were run by any of them."""

    def __init__(self, file: Path = FILE) -> None:
        self._file = file
        self.entries = counting.read(file)

    def done(self, what: str) -> set[int]:
        """The numbers of this kind of mix that were run."""
        ranges = [ends for entry in self.entries for ends in entry["numbers"].get(what, ())]
        return {number for first, last in ranges for number in range(first, last + 1)}

    def add(self, line: dict[str, Any]) -> None:
        """A line of one.py, of a mix or of a relay."""
        entry = self._entry()
        if "relay" in line:
            _add_relay(entry, line)
        else:
            _add_mix(entry, line)
        for wrong in line["wrong"]:
            entry["wrong"].append([line["what"], line.get("number", -1), wrong[:WRONG_KEPT]])

    def write(self) -> None:
        """Whole or not at all."""
        counting.write(self._file, self.entries)

    def _entry(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"numbers": {}, "mixes": 0, "cpu": [0, 0, 0], "excused": 0, "exact": 0}
        empty |= {"upstream": {}, "clients": {}, "troubles": {}, "variants": {}, "relays": [], "wrong": []}
        return counting.entry(self.entries, {"date": today(), "code": code()}, empty)


def _add_mix(entry: dict[str, Any], line: dict[str, Any]) -> None:
    what, number, variant = line["what"], line["number"], line["variant"]
    _number(entry["numbers"].setdefault(what, []), number)
    entry["exact"] += line["exact"]
    clients = sum(count for *_, count in line["seen"])
    for event, said in line["events"]:
        done = entry["troubles"].setdefault(event, {"done": 0, "left out": 0, "wrong": 0, "clients": 0})
        done["left out" if said.startswith("left out") else "done"] += 1
        done["wrong"] += bool(line["wrong"])
        done["clients"] += clients
    if line["events"]:
        return
    entry["mixes"] += 1
    entry["cpu"] = [round(before + more, 2) for before, more in zip(entry["cpu"], line["cpu"], strict=True)]
    entry["variants"][variant] = entry["variants"].get(variant, 0) + 1
    entry["excused"] += line["excused"]
    for client, fault, said, count in line["seen"]:
        wrong = said.startswith("WRONG")
        for name, rows in ((fault, entry["upstream"]), (client, entry["clients"])):
            row = rows.setdefault(name, [0, 0, 0])
            row[0] += count
            row[1] += count * (said.split("+")[0] == "whole")
            row[2] += count * wrong


def _number(ranges: list[list[int]], number: int) -> None:
    """Campaigns side by side have a range each, which grows at its end."""
    for ends in ranges:
        if ends[1] + 1 == number:
            ends[1] = number
            return
    ranges.append([number, number])


def _add_relay(entry: dict[str, Any], line: dict[str, Any]) -> None:
    warm = line["rss"][WARM_UP:]
    if len(warm) >= LEAST:
        entry["relays"].append(
            {"variant": line["relay"], "what": line["what"], "mixes": len(line["rss"]), "rss": [warm[0], warm[-1]]}
            | {"slope": [round(value) for value in slope(warm)]}
        )


def table(entries: Iterable[dict[str, Any]], variant_words: dict[str, str]) -> str:
    """All entries together, in Markdown."""
    entries = list(entries)
    upstream, clients, troubles = _summed(entries, "upstream"), _summed(entries, "clients"), _troubles(entries)
    variants = sum((Counter(entry["variants"]) for entry in entries), Counter[str]())
    wrong = [complaint for entry in entries for complaint in entry["wrong"]]
    excused = sum(entry["excused"] for entry in entries)
    exact = sum(entry["exact"] for entry in entries)
    cpu = [sum(entry["cpu"][part] for entry in entries) for part in range(3)]
    counted = sum(row[0] for row in clients.values())
    each = [f"{1000 * used / max(1, counted + excused):.0f}" for used in cpu]
    dates = sorted({entry["date"] for entry in entries})
    met = sum(row[0] >= AIM for row in upstream.values())
    rows = [
        f"From {dates[0]} to {dates[-1]}: {sum(entry['mixes'] for entry in entries):,} mixes with",
        f"{counted:,} clients of {len(clients)} kinds; {len(upstream)} kinds of answers,",
        f"{met} of them met by {AIM:,} clients or more. {exact:,} bytes of streams came whole and exact.",
        f"{excused:,} more clients are in no row below: the machine left them without a processor for so long that the relay",
        "may have cut them off, as it may who is slow. Bytes that were never sent would have been seen with them as well.",
        f"A client cost {' + '.join(each)} ms of a core: relay, upstream, client.",
        f"Complaints: {len(wrong)}.",
        "",
        "| the upstream | clients | streams whole and exact | clients that saw what they may not |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row[0]:,} | {f'{row[1]:,}' if name.split()[0] in HARMLESS else ''} | {row[2]} |"
            for name, row in sorted(upstream.items())
        ),
        *("", "| clients | of them | saw what they may not |", "|---|---|---|"),
        *(f"| {name} | {row[0]:,} | {row[2]} |" for name, row in sorted(clients.items())),
        *("", "| meanwhile | mixes | clients | after which anything was wrong | left out: this machine cannot do it |"),
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['done']:,} | {row['clients']:,} | {row['wrong']} | {row['left out']} |"
            for name, row in sorted(troubles.items())
        ),
        *("", "| the relay | mixes | memory's slope over its mixes, KiB a mix |", "|---|---|---|"),
        *(
            f"| {variant_words[name]} | {count:,} | {_slopes(entries, name)} |"
            for name, count in sorted(variants.items())
        ),
    ]
    if wrong:
        rows += ["", "| mix | complaint |", "|---|---|"]
        rows += [f"| {what} {number} | {said[:160].replace('|', '/')} |" for what, number, said in wrong[:30]]
    return "\n".join(rows)


def _summed(entries: list[dict[str, Any]], name: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in entries:
        for kind, row in entry[name].items():
            found[kind] = [before + more for before, more in zip(found.get(kind, [0, 0, 0]), row, strict=True)]
    return found


def _troubles(entries: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        for event, row in entry["troubles"].items():
            found.setdefault(event, Counter()).update(row)
    return found


def _slopes(entries: list[dict[str, Any]], variant: str) -> str:
    """From the least to the greatest, of campaigns of mixes."""
    kept = [
        relay["slope"][0] / 1024
        for entry in entries
        for relay in entry["relays"]
        if relay["variant"] == variant and relay["what"] == "mix"
    ]
    return f"{min(kept):,.0f} .. {max(kept):,.0f} ({len(kept)} campaigns)" if kept else ""
