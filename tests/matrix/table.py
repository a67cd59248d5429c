"""The table of what ran on which version, for the terminal and for a page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["BEGIN", "END", "Row", "keep", "kept", "rendered", "write"]

BEGIN, END = "<!-- matrix: written by `make matrix` -->", "<!-- /matrix -->"
_HEAD = ("CPython", "from", "passed", "skipped", "failed", "demo", "seconds", "day", "code")


@dataclass
class Row:
    """What one version did.

    why   why it could not be had, or why its tests ended early
    unsteady   tests that failed, and passed when they were run once more, alone; they count as passed
    day   on which it ran
    code  what `git describe` says of the code that ran
    """

    release: str
    version: str = ""
    where: str = ""
    passed: int = 0
    skipped: int = 0
    failed: int = 0
    demo: str = "not run"
    seconds: float = 0.0
    why: str = ""
    unsteady: list[str] = field(default_factory=list)
    day: str = ""
    code: str = ""

    @classmethod
    def missing(cls, release: str, why: str) -> Row:
        return cls(release, why=why)

    @property
    def ran(self) -> bool:
        return bool(self.version)

    @property
    def summary(self) -> str:
        if not self.ran:
            return f"CPython {self.release}: not run: {self.why}"
        counts = f"{self.passed} passed, {self.skipped} skipped, {self.failed} failed"
        counts += f", of the passed {len(self.unsteady)} at the second time: {', '.join(self.unsteady)}," * bool(
            self.unsteady
        )
        return f"CPython {self.version}: {counts} in {self.seconds:.0f} s" + (f" ({self.why})" if self.why else "")

    @property
    def cells(self) -> tuple[str, ...]:
        if not self.ran:
            return (self.release, f"not run: {self.why}", *["-"] * (len(_HEAD) - 2))
        passed = (
            f"{self.passed}, {len(self.unsteady)} of them at the second time" if self.unsteady else str(self.passed)
        )
        counts = (passed, str(self.skipped), str(self.failed))
        return (self.version, self.where, *counts, self.demo, f"{self.seconds:.0f}", self.day, self.code)


def keep(folder: Path, row: Row) -> None:
    """Keep what a version did with the whole suite: the page has the last of each version, whenever it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{row.release}.json").write_text(json.dumps(asdict(row), indent=1) + "\n", encoding="utf-8")


def kept(folder: Path) -> dict[str, Row]:
    """By release, what was kept of each version."""
    rows = (Row(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json"))
    return {row.release: row for row in rows}


def rendered(rows: list[Row], tests: list[str]) -> str:
    """The table in Markdown, with what was run and on what machine."""
    told = f"`pytest {' '.join(tests)}`, {platform.system()} {platform.machine()}."
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(row.cells) for row in rows)]
    return "\n".join([told, "", *lines])


def write(page: Path, table: str) -> None:
    """Put the table between the page's two marks. Raises ValueError where it has none."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no marks to put the table between: {BEGIN} and {END}")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
