"""`diagnostics status URL [--watch]`: balance, verdict and the largest streams of every worker, and the service as a whole.

Exit code 0 where no verdict is an alarm, 1 where one is, 3 where no monitor answers or there is no worker.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import httpx2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..analysis.balance import PARTS
from ..analysis.units import format_moment, format_percent, format_value, printable
from ..errors import DiagnosticsError, TargetError
from ._asking import asked, client_of

__all__ = ["configure", "run"]

_STREAMS = 10
_LINES = 5
_BAR = 30
# A loop with less lag is busy, not blocked.
_BLOCKED_SECONDS = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the monitor's address, for example http://127.0.0.1:6060")
    parser.add_argument("--watch", action="store_true", help="go on, once a second, until interrupted")


def run(arguments: argparse.Namespace) -> int:
    console = Console()
    with client_of(arguments.url) as client:
        overview = _overview(client)
        if not arguments.watch:
            console.print(shown(overview))
            return int(_alarm(overview))
        with Live(shown(overview), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(1.0)
                live.update(_looked(client), refresh=True)


def _overview(client: httpx2.Client) -> dict[str, Any]:
    overview: dict[str, Any] = asked(client, "GET", "/debug/memory")
    if not overview["workers"]:
        there = [_process(each) for each in overview["service"]["supervisors"] + overview["service"]["children"]]
        raise TargetError(
            f"no worker is there at {client.base_url}" + (f"; there is {', '.join(there)}" if there else ""),
            remedy="the supervisor's workers do not start: read its output"
            if there
            else "wait for the service to start",
        )
    return overview


def _alarm(overview: dict[str, Any]) -> bool:
    return bool(overview["service"]["verdict"]["alarm"]) or any(
        worker["verdict"]["alarm"] for worker in overview["workers"]
    )


def _looked(client: httpx2.Client) -> RenderableType:
    """One refresh of --watch; an error is shown instead of raised, since a monitor may come back."""
    try:
        return shown(_overview(client))
    except DiagnosticsError as error:
        return Text(f"{format_moment(time.time())}  {error}", style="red")


def shown(overview: dict[str, Any]) -> Group:
    """The overview of /debug/memory, for people."""
    workers = [part for worker in overview["workers"] for part in _worker(worker)]
    service = _service(overview["service"])
    # Problems first: how the last process of a worker ended, then growth beside the workers.
    beside = overview["service"]["verdict"]["alarm"]
    return Group(
        *map(_ended, overview.get("ends") or ()),
        *map(_attached, overview.get("attached") or ()),
        *_egress(overview.get("egress")),
        *(service + workers if beside else workers + service),
    )


def _attached(row: dict[str, Any]) -> RenderableType:
    text = Text(
        f"attached to process {row['pid']} since {printable(row['since'])} by {printable(row['how'])}, uid {row['uid']}"
    )
    return text if row["agent"] else text.append("; its agent is no longer there", style="yellow")


def _egress(egress: dict[str, Any] | None) -> list[RenderableType]:
    """What is not in the store: nothing where all is, or nothing is sent anywhere."""
    if egress is None or not (egress["failing"] or egress["failed"] or egress["dropped"] or egress["lost"]):
        return []
    counts = ", ".join(f"{egress[word]} {word}" for word in ("waiting", "sent", "failed", "dropped", "lost"))
    text = Text(f"egress to {printable(egress['url'])}: {counts}", style="yellow")
    if egress["failing"]:
        text.append(f"\n  {printable(egress['failing'])}", style="default")
    return [text]


def _ended(end: dict[str, Any]) -> RenderableType:
    text = Text(
        f"{format_moment(end['time'])}  worker {printable(end['worker'])} (pid {end['pid']}): ", style="bold red"
    )
    text.append(printable(end["said"]), style="not bold")
    if end["verdict"]:
        text.append(f"\n  last verdict: {printable(end['verdict'])}", style="not bold default")
    for line in end.get("lines", ()):  # a monitor of an earlier version tells none
        middle, between = _with_interval(line["grown_bytes"])
        inside = f", in {line['in']}" if line["in"] else ""
        gained = f"{printable(line['name'] + inside)} gained {middle} in {line['seconds']:.0f} s (95 % sure: {between})"
        text.append(f"\n  live heap: {gained}", style="not bold default")
    if end["file"]:
        text.append(f"\n  next: diagnostics blackbox {printable(end['file'])}", style="not bold default")
    return text


def _service(service: dict[str, Any]) -> list[RenderableType]:
    """The sums over all processes, and the processes that are no workers."""
    sizes = ", ".join(
        f"{name} {_size(service[key])}"
        for name, key in (("RSS", "rss_bytes"), ("PSS", "pss_bytes"), ("private", "private_bytes"))
    )
    count, workers = service["count"], service["workers"]
    many = f"{count} process{'' if count == 1 else 'es'}, {workers} worker{'' if workers == 1 else 's'} among them"
    head = Text(f"service: {many}; {sizes}", style="bold")
    reasons = [Text(f"  {name} unknown: {printable(why)}") for name, why in service["unknown"].items()]
    verdict = service["verdict"]
    says = Text(f"{verdict['title']}  ", style="bold red" if verdict["alarm"] else "bold green")
    says.append(printable(verdict["says"]), style="not bold default")
    if verdict["alarm"]:
        says.append(f"\nnext: {verdict['next']}\nfix:  {verdict['fix']} ({verdict['docs']})", style="not bold default")
    return [head, *reasons, *_charged(service.get("charged")), says, *_others(service)]


def _charged(charged: dict[str, Any] | None) -> list[RenderableType]:
    """The charges of the cgroup, and those beside the processes."""
    if charged is None or charged["usage_bytes"] is None:
        return []
    limit = "no limit" if charged["limit_bytes"] is None else f"limit {_size(charged['limit_bytes'])}"
    names = (("tmpfs and shared memory", "tmpfs_bytes"), ("kernel", "kernel_bytes"), ("sockets", "socket_bytes"))
    beside = ", ".join(f"{name} {_size(charged[key])}" for name, key in names)
    return [Text(f"  cgroup: in use {_size(charged['working_bytes'])}, {limit}; in it {beside}")]


def _others(service: dict[str, Any]) -> list[RenderableType]:
    rows = [*service["supervisors"], *service["children"]]
    if not rows:
        return []
    table = Table(box=None)
    for column in ("pid", "program", "is", "of worker", "RSS", "PSS", "private"):
        table.add_column(column, justify="right" if column in ("pid", "RSS", "PSS", "private") else "left")
    of_reason: dict[str, list[int]] = {}  # below the table: beside it, in 80 columns, a sentence would be one word wide
    for row in rows:
        sizes = (_size(row[key]) for key in ("rss_bytes", "pss_bytes", "private_bytes"))
        cells = (str(row["pid"]), row["program"], row["role"], row["worker"] or "", *sizes)
        table.add_row(*(Text(printable(word)) for word in cells))
        if row["reason"]:
            of_reason.setdefault(row["reason"], []).append(row["pid"])
    reasons = (f"  pid {', '.join(map(str, pids))}: {printable(why)}" for why, pids in of_reason.items())
    return [table, *map(Text, reasons)]


def _process(row: dict[str, Any]) -> str:
    return f"{row['role']} {printable(row['program'])} (pid {row['pid']})"


def _size(held: int | None) -> str:
    return "unknown" if held is None else format_value(held, "bytes")


def _worker(worker: dict[str, Any]) -> list[RenderableType]:
    head = Text(f"worker {worker['worker']} (pid {worker['pid']}), {worker['state']}", style="bold")
    if worker["reason"]:
        head.append(f": {printable(worker['reason'])}", style="red")
    pending = worker["loop_pending_seconds"] or 0.0
    if pending >= _BLOCKED_SECONDS:
        head.append(f": the event loop is blocked, it has not come to its work for {pending:.0f} s", style="red")
    return [
        head, _verdict(worker["verdict"]), *_lines(worker), _balance(worker), *_unknown(worker), _streams(worker)
    ]  # fmt: skip


def _lines(worker: dict[str, Any]) -> list[RenderableType]:
    """The lines of its code that grow, by the live heap; nothing where it keeps none: that it was asked for and cannot be had,
    `_unknown` says."""
    lines, heap = worker.get("lines"), worker.get("heap")
    if not lines or not heap or heap["reason"]:
        return []
    if lines["unknown"]:
        return [Text(f"lines that grow: unknown: {printable(lines['unknown'])}\n", style="yellow")]
    rows = [row for row in lines["rows"] if row["grows"]][:_LINES]
    within = f"within {lines['seconds']:.0f} s" if lines["seconds"] is not None else ""
    within += f" of {lives} processes, one after the other" if (lives := lines.get("lives", 1)) > 1 else ""
    if rows:
        return [_table(rows, f"lines that grow, {within}", {"an hour": "per_hour", "holds": "held_bytes"}), Text()]
    if not worker["verdict"]["alarm"]:
        return []
    # So soon after an alarm there are few samples: enough for who has gained, and not yet for whether it was all along.
    rows = [row for row in lines["rows"] if row["grown_bytes"]["low"] > 0][:_LINES]
    if not rows:
        return [Text("live heap: no line of code gained beyond doubt\n", style="dim")]
    title = f"lines that gained, {within}; whether steadily is not known yet"
    return [_table(rows, title, {"gained": "grown_bytes", "holds": "held_bytes"}), Text()]


def _table(rows: list[dict[str, Any]], title: str, figures: dict[str, str]) -> Table:
    """Lines of code with some figures and their intervals; `figures`: title of the column -> key of the row."""
    table = Table(title=title, title_justify="left", box=None)
    for column in (*(each for figure in figures for each in (figure, "95 % sure")), "line"):
        table.add_column(column, justify="left" if column == "line" else "right")
    for row in rows:
        inside = f", in {row['in']}" if row["in"] else ""
        cells = [cell for key in figures.values() for cell in _with_interval(row[key])]
        table.add_row(*map(Text, (*cells, printable(f"{row['name']}{inside}"))))
    return table


def _with_interval(figure: dict[str, float]) -> tuple[str, str]:
    low, middle, high = (format_value(round(figure[each]), "bytes") for each in ("low", "mid", "high"))
    return middle, f"{low} to {high}"


def _unknown(worker: dict[str, Any]) -> list[RenderableType]:
    """The worker's unknown readings, each with its reason."""
    rows = worker["unknown"].items()
    lines: list[RenderableType] = [
        Text(f"{name.replace('_', ' ')}: unknown: {printable(why)}", style="yellow") for name, why in rows
    ]
    heap = worker.get("heap")
    if heap and heap["reason"]:
        lines.append(Text(f"live heap: {printable(heap['reason'])}", style="yellow"))
    return lines


def _verdict(verdict: dict[str, Any]) -> Text:
    text = Text()
    text.append(f"{verdict['title']}", style="bold red" if verdict["alarm"] else "bold green")
    text.append(f" ({verdict['confidence']} confidence)  " if verdict["verdict"] != "inconclusive" else "  ")
    text.append(f"{printable(verdict['says'])}\n")
    for evidence in verdict["evidence"]:
        text.append(f"  {printable(evidence['text'])}\n", style="dim")
    text.append(f"next: {verdict['next']}\n")
    text.append(f"fix:  {verdict['fix']} ({verdict['docs']})\n")
    for other in verdict["also"]:
        text.append(f"also: {other['title']} ({other['confidence']} confidence)  {printable(other['says'])}\n")
        text.append(f"  next: {other['next']}\n", style="dim")
    return text


def _balance(worker: dict[str, Any]) -> RenderableType:
    balance = worker["balance"]
    if balance is None:
        return Text("balance: the kernel does not tell\n")
    rss = balance["rss_bytes"]
    own = f"private {_size(balance['private_bytes'])}, PSS {_size(balance['pss_bytes'])}"
    title = f"RSS {format_value(rss, 'bytes')} ({own})"
    children = worker["children"]
    if children["count"]:
        beside = f"RSS {_size(children['rss_bytes'])}, PSS {_size(children['pss_bytes'])}"
        title += f"; {children['count']} children beside it ({beside})"
    title += _forecast(worker.get("limit"))
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    for part in PARTS:
        held = balance["parts"][part]
        share = 0 if held is None or not rss else round(_BAR * held / rss)
        table.add_row(
            part,
            Text("unknown" if held is None else format_value(held, "bytes"), justify="right"),
            Text("" if held is None else format_percent(held, rss), justify="right"),
            Text("█" * share, style="blue")
            if held is not None
            else Text(printable(balance["unknown"].get(part, "")), "dim"),
        )
    return table


def _forecast(limit: dict[str, Any] | None) -> str:
    """The limit of the worker's cgroup, and the time until it is reached at the present slope."""
    if limit is None or limit["limit_bytes"] is None:
        return ""
    text = f"\nlimit {_size(limit['limit_bytes'])}, charged for it {_size(limit['used_bytes'])}"
    seconds = limit["seconds_to_limit"]
    return text if seconds is None else f"{text}: met in {format_value(round(seconds), 'seconds')} at the present slope"


def _streams(worker: dict[str, Any]) -> Table:
    rows = worker["streams"]
    unknown = (worker.get("connections") or {}).get("unknown", ())
    title = "largest streams" if rows else "streams unknown" if unknown else "no open streams"
    title = "\n".join((title, *(printable(reason) for reason in unknown)))
    table = Table(title=Text(title), title_justify="left", box=None)
    if rows:
        for column in ("id", "route", "state", "age", "held", "app", "transport", "kernel", "retained", "trace"):
            table.add_column(column, justify="left" if column in ("route", "state", "trace") else "right")
    for row in rows[:_STREAMS]:
        layers = ("held_bytes", "buffered_bytes", "transport_bytes", "kernel_bytes", "retained_bytes")
        sizes = ("" if row[layer] is None else format_value(row[layer], "bytes") for layer in layers)
        cells = (str(row.get("id", "")), row["route"], row.get("state") or "", f"{row['age_seconds']:.1f} s")
        table.add_row(*(Text(printable(word)) for word in (*cells, *sizes, row.get("trace_id") or "")))
    return table


def _no_rows(worker: dict[str, Any]) -> str:
    """The text in place of an empty table: "no open streams" only where streams are known, not where sockets are counted."""
    if worker["ledger"] or worker["connections"]["source"] != "sockets":
        return "no open streams"
    open_now = worker["connections"]["open"]
    return f"streams are not seen here; clients connected: {'unknown' if open_now is None else open_now}"
