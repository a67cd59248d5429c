"""GET /debug/memory/fleet: all replicas' monitors as one table, as `diagnostics fleet status` prints it.

A page for browsers, JSON otherwise.

404 where this monitor was given no targets (`--fleet`, DIAGNOSTICS_FLEET_TARGETS).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib import resources
from string import Template

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ....fleet.replicas import Replica
from ....fleet.table import COLUMNS, cells_of, details_of
from ..fleet_look import FleetLook, FleetRows
from .page import HEADERS, wants_html

__all__ = ["rendered", "route"]


def route(fleet: FleetLook) -> Route:
    async def show(request: Request) -> Response:
        rows = await fleet.read()
        if wants_html(request.headers.get("accept", "")):
            return Response(rendered(rows), headers={**HEADERS, "Vary": "Accept"}, media_type="text/html")
        return JSONResponse(rows.to_json(), headers={"Vary": "Accept", "Cache-Control": "no-store"})

    return Route("/debug/memory/fleet", show)


@cache
def _template() -> Template:
    return Template(resources.files("diagnostics.monitor.web.pages").joinpath("fleet.html").read_text(encoding="utf-8"))


def rendered(fleet: FleetRows) -> str:
    """The page. Every text of a monitor's is escaped; the only links are to the targets' own addresses."""
    answers = sum(replica.answers for replica in fleet.replicas)
    alarms = sum(replica.alarm for replica in fleet.replicas)
    headings = "".join(f'<th scope="col"{_number(number)}>{escape(name)}</th>' for name, number in COLUMNS)
    return _template().substitute(
        summary=f"{answers} of {len(fleet.replicas)} answer, {alarms} with an alarm, {len(fleet.reasons)} odd",
        headings=headings,
        rows="\n".join(_row(replica, fleet.reasons.get(replica.name)) for replica in fleet.replicas),
        time=datetime.fromtimestamp(fleet.time, UTC).strftime("%H:%M:%S"),
        notes=_notes(fleet),
    )


def _row(replica: Replica, reason: str | None) -> str:
    name, verdict, *others = cells_of(replica, reason)
    link = f'<a href="{escape(replica.url)}/debug/memory">{escape(name)}</a>'
    state = "alarm" if replica.error or replica.alarm else "calm"
    cells = [link, f'<span class="{state}">{escape(verdict)}</span>', *map(escape, others[:-1])]
    cells.append(f'<span class="alarm">{escape(others[-1])}</span>' if others[-1] else "")
    return "<tr>" + "".join(
        f'<td data-label="{escape(heading)}"{_number(number)}>{cell}</td>'
        for cell, (heading, number) in zip(cells, COLUMNS, strict=True)
    ) + "</tr>"  # fmt: skip


def _number(number: bool) -> str:
    return ' class="n"' if number else ""


def _notes(fleet: FleetRows) -> str:
    """What is to be said of replicas beyond their rows, and of words that gave none."""
    said = [line for replica in fleet.replicas for line in details_of(replica, fleet.reasons.get(replica.name))]
    said += [f"{word}: {error}" for word, error in fleet.unresolved.items()]
    if not said:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    return f'<section class="card wide"><h2>Details</h2><ul class="said">{lines}</ul></section>'
