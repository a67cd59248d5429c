"""The report as one HTML file: no network, no scripts but the flame graphs' own, light and dark.

Each flame graph is the page of `analysis.formats.flamegraph`, in a sandboxed frame of its own that may run its script only.
A `srcdoc` frame is subject to this page's policy, too, so that has the hashes of that script and of both styles.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from collections.abc import Iterable
from importlib import resources

from ....analysis.formats import flamegraph
from ....analysis.units import format_moment
from .model import Flame, Incident, Plot, ReportTable, Statement
from .plot import svg

__all__ = ["render"]


def render(incident: Incident) -> bytes:
    """The page, in UTF-8. The same incident always gives the same bytes."""
    script, flame_style = flamegraph.sources()
    own_style = _style()
    digest = base64.b64encode(hashlib.sha256(own_style.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src '{script}'; style-src '{flame_style}' 'sha256-{digest}'; base-uri 'none'"
    body = [
        "<header>",
        f"<h1>{_text(incident.title)}</h1>",
        f"<p>{_text(format_moment(incident.when))}, {incident.seconds:.0f} s</p>",
        f'<p class="lead">{_text(incident.lead)}</p>' if incident.lead else "",
        "</header>",
        _cards(incident.statements),
        *map(_plot, incident.plots),
        *map(_table, incident.tables),
        _flames(incident.flames),
        *map(_table, incident.context),
        _again(incident.commands),
        _notes(incident.notes),
        _versions(incident.versions.items()),
    ]
    page = _PAGE.format(
        title=_text(incident.title), policy=policy, style=own_style, body="\n".join(part for part in body if part)
    )
    return page.encode("utf-8", "backslashreplace")


def _cards(statements: Iterable[Statement]) -> str:
    cards = "".join(
        f'<li class="{each.tone}"><strong>{_text(each.word)}</strong>{_text(each.text)}</li>' for each in statements
    )
    return f'<ul class="cards">{cards}</ul>' if cards else ""


def _plot(plot: Plot) -> str:
    legend = "".join(f'<li class="{curve.tone}"><i></i>{_text(curve.name)}</li>' for curve in plot.curves)
    return (
        f'<h2>{_text(plot.title)}</h2><figure><ul class="legend">{legend}</ul>{svg(plot)}'
        f"<figcaption>{_text(plot.note)}</figcaption></figure>"
    )


def _table(table: ReportTable) -> str:
    def cells(row: Iterable[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=word' if index in table.left else ''}>{_text(cell)}</{tag}>"
            for index, cell in enumerate(row)
        )

    rows = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    head = f"<thead><tr>{cells(table.headings, 'th')}</tr></thead>"
    return f'<h2>{_text(table.title)}</h2><div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def _flames(flames: tuple[Flame, ...]) -> str:
    if not flames:
        return ""
    parts = []
    for number, flame in enumerate(flames):
        page = flamegraph.render(flame.profile, before=flame.before, value=flame.value, title=flame.title).decode()
        # Only the first one is open: a closed frame is loaded when the reader opens it.
        parts.append(
            f"<details{' open' if number == 0 else ''}><summary>{_text(flame.title)}</summary>"
            f'<iframe sandbox="allow-scripts" loading="lazy" title="{_text(flame.title)}" srcdoc="{html.escape(page)}">'
            "</iframe></details>"
        )
    return "<h2>Flame graphs</h2>" + "".join(parts)


def _again(commands: Iterable[str]) -> str:
    lines = "\n".join(commands)
    return f"<h2>Run it again</h2><pre>{_text(lines)}</pre>" if lines else ""


def _notes(notes: tuple[str, ...]) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return f'<h2>What this does not show</h2><ul class="notes">{items}</ul>' if items else ""


def _versions(versions: Iterable[tuple[str, str]]) -> str:
    listed = ", ".join(f"{name} {version}" for name, version in versions)
    return f"<h2>Versions</h2><p>{_text(listed)}</p>" if listed else ""


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


@functools.cache
def _style() -> str:
    return resources.files(__package__).joinpath("report.css").read_text("utf-8")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
