"""The report in Markdown, for an issue or a chat: all but the plots and flame graphs."""

from __future__ import annotations

import re

from ....analysis.units import format_moment, printable
from .model import Incident, ReportTable

__all__ = ["render"]

# Characters with a meaning in Markdown, or in HTML within it (CommonMark, 2.4).
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def render(incident: Incident) -> str:
    """The report as Markdown. The same incident always gives the same text."""
    parts = [f"# {_text(incident.title)}", f"{format_moment(incident.when)}, {incident.seconds:.0f} s"]
    if incident.lead:
        parts.append(_text(incident.lead))
    if incident.statements:
        parts.append("\n".join(f"- **{_text(each.word)}** {_text(each.text)}" for each in incident.statements))
    parts += [_table(table) for table in (*incident.tables, *incident.context)]
    if incident.commands:
        parts.append("## Run it again\n\n" + "\n".join(f"    {printable(line)}" for line in incident.commands))
    if incident.notes:
        parts.append("## What this does not show\n\n" + "\n".join(f"- {_text(note)}" for note in incident.notes))
    if incident.versions:
        listed = ", ".join(f"{name} {version}" for name, version in incident.versions.items())
        parts.append(f"## Versions\n\n{_text(listed)}")
    return "\n\n".join(parts) + "\n"


def _table(table: ReportTable) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(map(_text, cells))} |"

    rule = "|".join(":---" if index in table.left else "---:" for index in range(len(table.headings)))
    rows = [line(table.headings), f"|{rule}|", *map(line, table.rows)]
    return f"## {_text(table.title)}\n\n" + "\n".join(rows)


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", printable(text.replace("\n", " ")))
