"""Facts of the captured service for its manifest: versions, command line, git revision. Never a secret.

People pass keys on command lines. Words that look like one are replaced: the value of an option or variable whose name says
so, credentials in URLs, and words with the shape of a key.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["HIDDEN", "command_line", "facts_of", "git_revision", "redacted"]

HIDDEN = "(hidden)"

# Matched anywhere in an option's name: also --ssl-keyfile and --api-key-for-tests lose their values.
_SECRET_NAME = re.compile(r"(?i)key|token|passw|passphrase|pwd|secret|credential|auth|dsn|cookie")
# OpenAI's, GitHub's, Slack's, Google's and AWS's keys, and JSON web tokens.
_KEY_SHAPES = re.compile(
    r"\b(sk-[\w-]{8,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|xox[abprs]-[\w-]{8,}|AIza[\w-]{20,}|AKIA[A-Z0-9]{12,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
_REVISION = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_REF = re.compile(r"refs/[\w./-]+")


def facts_of(pid: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """`{"versions", "command", "revision"}` of process `pid`; `about`: its agent's answer to "hello"."""
    return {
        "versions": {
            "python": about.get("python"),
            "highwater": _version("highwater-diagnostics"),
            "memray": _version("memray"),
            "monitor_python": platform.python_version(),
        },
        "command": command_line(pid),
        "revision": git_revision(pid),
    }


def command_line(pid: int, proc: Path = Path("/proc")) -> list[str] | None:
    """The words of a process's command line without secrets; None where they cannot be read."""
    try:
        data = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    return redacted(data.decode("utf-8", "backslashreplace").rstrip("\0").split("\0")) if data else None


def redacted(words: Iterable[str]) -> list[str]:
    """The same words with `(hidden)` for each one that is, or may be, a secret: rather one too many than one too few."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        if hide_next and not word.startswith("--"):
            shown.append(HIDDEN)
            hide_next = False
            continue
        name, equals, _value = word.partition("=")
        secret = _SECRET_NAME.search(name) is not None
        hide_next = secret and not equals and word.startswith("-")
        shown.append(f"{name}={HIDDEN}" if secret and equals else _without_shapes(word))
    return shown


def _without_shapes(word: str) -> str:
    word = _KEY_SHAPES.sub(HIDDEN, word)
    word = _BEARER.sub(lambda match: f"{match[1]} {HIDDEN}", word)
    return _URL_CREDENTIALS.sub(f"{HIDDEN}@", word)


def git_revision(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The commit checked out in a process's working folder, read from `.git` without running git; None where unknown."""
    try:
        folder = (proc / str(pid) / "cwd").resolve()
        for place in (folder, *folder.parents):
            if (place / ".git").exists():
                return _head(place / ".git")
    except OSError:
        return None
    return None


def _head(git: Path) -> str | None:
    if git.is_file():  # a worktree or submodule: `gitdir: PATH`
        git = (
            git.parent / git.read_text(encoding="utf-8", errors="surrogateescape").partition("gitdir:")[2].strip()
        ).resolve()
    head = (git / "HEAD").read_text(errors="surrogateescape").strip()
    if _REVISION.fullmatch(head):
        return head
    ref = head.removeprefix("ref: ")
    if not _REF.fullmatch(ref) or ".." in ref:
        return None
    common = git
    if (git / "commondir").is_file():  # a worktree's branches are in its repository
        common = (git / (git / "commondir").read_text(errors="surrogateescape").strip()).resolve()
    for place in (git, common):
        if (place / ref).is_file():
            return _as_revision((place / ref).read_text(encoding="utf-8").strip())
    if (common / "packed-refs").is_file():
        for line in (common / "packed-refs").read_text(errors="surrogateescape").splitlines():
            revision, _, name = line.partition(" ")
            if name == ref:
                return _as_revision(revision)
    return None


def _as_revision(text: str) -> str | None:
    return text if _REVISION.fullmatch(text) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
