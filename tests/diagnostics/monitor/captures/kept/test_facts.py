from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.monitor.captures.kept.facts import HIDDEN, command_line, git_revision, redacted

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["python", "-m", "uvicorn", "app:app", "--port", "80"], ["python", "-m", "uvicorn", "app:app", "--port", "80"]),
        (["serve", "--api-key", "abc", "x"], ["serve", "--api-key", HIDDEN, "x"]),
        (["serve", "--api-key=abc"], ["serve", f"--api-key={HIDDEN}"]),
        (["--DB_PASSWORD", "-dash", "--client-secret", "--verbose"], ["--DB_PASSWORD", HIDDEN, "--client-secret", "--verbose"]),
        (["env", "OPENAI_API_KEY=abc", "MODE=fast"], ["env", f"OPENAI_API_KEY={HIDDEN}", "MODE=fast"]),
        (["run", "sk-proj-abcdefgh123"], ["run", HIDDEN]),
        (["--header", "Authorization: Bearer abc.def"], ["--header", f"Authorization: Bearer {HIDDEN}"]),
        (["--url", "postgres://me:pw@db/x"], ["--url", f"postgres://{HIDDEN}@db/x"]),
        (["src/tokens.py", "--risk", "ask-me"], ["src/tokens.py", "--risk", "ask-me"]),
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_the_rest_is_left(words: list[str], shown: list[str]) -> None:
    assert redacted(words) == shown


@given(
    option=st.sampled_from(["--api-key", "--token", "--my_password", "--client-secret", "--x-TOKEN-y"]),
    secret=st.text(st.characters(categories=["L", "N"]), min_size=12),
    before=st.lists(st.sampled_from(["a", "--flag", "-x", "NAME=value"])),
    joined=st.booleans(),
)
def test_no_value_of_a_secret_option_survives(option: str, secret: str, before: list[str], joined: bool) -> None:
    words = [*before, f"{option}={secret}"] if joined else [*before, option, secret]
    assert not any(secret in word for word in redacted(words))


def test_the_command_of_a_process_is_read_from_outside() -> None:
    words = command_line(os.getpid())
    assert words
    assert "python" in words[0]
    assert command_line(2**22 + 1) is None


def repository(root: Path, head: str, files: dict[str, str]) -> Path:
    proc = root / "proc" / "7"
    proc.mkdir(parents=True)
    work = root / "srv" / "app"
    work.mkdir(parents=True)
    (proc / "cwd").symlink_to(work)
    git = root / "srv" / ".git"
    for name, content in {"HEAD": head, **files}.items():
        (git / name).parent.mkdir(parents=True, exist_ok=True)
        (git / name).write_text(content, encoding="utf-8")
    return root / "proc"


@pytest.mark.parametrize(
    ("head", "files", "found"),
    [
        (f"{REVISION}\n", {}, REVISION),
        ("ref: refs/heads/main\n", {"refs/heads/main": f"{REVISION}\n"}, REVISION),
        ("ref: refs/heads/fix/it\n", {"packed-refs": f"# pack-refs\n{REVISION} refs/heads/fix/it\n"}, REVISION),
        ("ref: refs/heads/new\n", {}, None),
        ("ref: refs/../../secret\n", {"../secret": "s"}, None),
        ("rubbish", {}, None),
        ("ref: refs/heads/main\n", {"refs/heads/main": "not a revision"}, None),
    ],
)
def test_the_revision_is_read_without_running_git(
    tmp_path: Path, head: str, files: dict[str, str], found: str | None
) -> None:
    assert git_revision(7, repository(tmp_path, head, files)) == found


def test_a_worktree_finds_its_branch_in_its_repository(tmp_path: Path) -> None:
    proc = tmp_path / "proc" / "7"
    proc.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (proc / "cwd").symlink_to(tmp_path / "work")
    own = tmp_path / "main/.git/worktrees/w"
    own.mkdir(parents=True)
    (tmp_path / "work/.git").write_text(f"gitdir: {own}\n", encoding="utf-8")
    (own / "HEAD").write_text("ref: refs/heads/w\n", encoding="utf-8")
    (own / "commondir").write_text("../..\n", encoding="utf-8")
    (tmp_path / "main/.git/refs/heads").mkdir(parents=True)
    (tmp_path / "main/.git/refs/heads/w").write_text(REVISION, encoding="utf-8")
    assert git_revision(7, tmp_path / "proc") == REVISION
