"""Writes a report: report.html and report.md."""

from __future__ import annotations

from pathlib import Path

from . import markdown, page
from .model import Incident

__all__ = ["write"]


def write(incident: Incident, folder: Path) -> Path:
    """Write both files into `folder`, which is created; return the HTML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_bytes(page.render(incident))
    (folder / "report.md").write_text(markdown.render(incident), "utf-8")
    return path
