"""Tables that commands write into documents, between two marks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write"]


def write(document: Path, text: str, marks: tuple[str, str]) -> None:
    """Put the text between its two marks. Raises ValueError where the document has not both of them."""
    begin, end = marks
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{document} has no {begin} and {end} behind it")
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")
