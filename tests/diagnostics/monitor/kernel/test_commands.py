"""What a process runs is shown without its arguments, which may hold secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from diagnostics.monitor.kernel.commands import shown_command

SPAWNED = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/python3.11", "-m", "celery", "--broker", "redis://:secret@h"], "python3.11 -m celery"),
        (["python3", "-X", "dev", "-u", "/srv/job.py", "--token=secret"], "python3 job.py"),
        (
            ["/usr/bin/python3.11", "-c", SPAWNED, "--multiprocessing-fork"],
            "python3.11 (multiprocessing.spawn.spawn_main)",
        ),
        (["python3", "-c", "print('secret')"], "python3 -c"),
        (["python3"], "python3"),
        (["/usr/sbin/nginx", "-c", "secret.conf"], "nginx"),
    ],
)
def test_the_program_and_its_script(tmp_path: Path, words: list[str], shown: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    assert shown_command(7, tmp_path) == shown


def test_of_one_that_has_ended_nothing_is_known(tmp_path: Path) -> None:
    assert shown_command(7, tmp_path) == ""
