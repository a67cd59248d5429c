"""Formats a result as a table for terminals and text files: columns, and a row's text in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....analysis.units import format_value

__all__ = ["HELD_COLUMNS", "Column", "bytes_of", "table_of", "text_of", "where"]


@dataclass(frozen=True)
class Column:
    """One column of a result's table: its title, and row -> text; `right`: aligned to the right."""

    title: str
    show: Callable[[dict[str, Any]], str]
    right: bool = True


def bytes_of(key: str) -> Callable[[dict[str, Any]], str]:
    """row -> its value `key` formatted as bytes; empty where it is None."""
    return lambda row: "" if row.get(key) is None else format_value(row[key], "bytes")


def text_of(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "" if row.get(key) is None else str(row[key])


def where(row: dict[str, Any]) -> str:
    place = f"{row['file']}:{row['line']}" if row["file"] else ""
    return " ".join(filter(None, (place, row["function"])))


HELD_COLUMNS = (
    Column("held", bytes_of("bytes")),
    Column("blocks", text_of("count")),
    Column("where", where, right=False),
)


def table_of(columns: tuple[Column, ...], rows: list[dict[str, Any]]) -> str:
    """Rows as plain text, in aligned columns."""
    cells = [[column.title for column in columns], *([column.show(row) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = (
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        for line in cells
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)
