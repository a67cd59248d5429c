"""Runs the suite again and again, each time in other surroundings: what it says must be the same everywhere.

    make steady                          those of ten rounds that were not run on this very code yet
    make steady STEADY='--rounds 2,7-9'  some of them; or --fresh, or --help

Each round is pytest in random order, in a copy of this checkout that belongs to the user that it runs as, with
an environment of its own and nothing inherited. The table of what was found stands in CONTRIBUTING.md.

    user     half of the rounds run as root, half as an ordinary user; where this is not started by root, all as its user
    load     half of them beside two processes that take all CPU they get, and 5,000 sockets in TIME_WAIT on loopback
    beside   time zone, locale, umask, terminal, folders, limits and programs that are missing: `ROUNDS` below
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "CONTRIBUTING.md"
# The last run of each round. It is kept with the code: ten rounds take longer than some have a machine for.
RECORD = ROOT / "tests" / "steady.json"
BEGIN, END = "<!-- steady: begin -->", "<!-- steady: end -->"
# Not below a home folder: an ordinary user may read it.
PLACE = Path("/var/tmp/highwater-steady")
HOGS = 2
TIME_WAITS = 5_000
TIME_WAIT_SECONDS = 60  # TCP_TIMEWAIT_LEN of the Linux kernel
ROUND_SECONDS = 3600
SUITE = ("tests", "--ignore=tests/bench")
DEBIAN_COMMANDS = ("chromium", "curl", "go", "nginx", "prometheus", "promtool", "redis-server", "valgrind")


@dataclass(frozen=True)
class Round:
    """One run of the suite.

    says     its surroundings, as the table has them
    env      what is in its environment beside PATH, HOME and TMPDIR
    umask, open_files      as the process gets them
    long_tmpdir     a temporary folder whose path is longer than a Unix socket's address may be
    no_home         HOME is a folder that there is not
    no_debian       without the programs of tests/debian-packages.txt
    """

    number: int
    root: bool
    loaded: bool
    says: str
    env: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022
    open_files: int | None = None
    long_tmpdir: bool = False
    no_home: bool = False
    no_debian: bool = False


ROUNDS = (
    Round(1, True, False, "UTC, C.UTF-8", {"TZ": "UTC", "LC_ALL": "C.UTF-8"}),
    Round(
        2, False, False, "Asia/Kolkata, LC_ALL=C, umask 077", {"TZ": "Asia/Kolkata", "LC_ALL": "C"}, umask=0o077
    ),
    Round(
        3, True, False, "no Debian programs, 40 columns, NO_COLOR",
        {"COLUMNS": "40", "LINES": "10", "NO_COLOR": "1", "TERM": "dumb"}, no_debian=True,
    ),
    Round(4, False, False, "long TMPDIR, America/St_Johns", {"TZ": "America/St_Johns"}, long_tmpdir=True),
    Round(
        5, True, False, "ASCII as encoding, no HOME",
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, no_home=True,
    ),
    Round(6, False, True, "Pacific/Chatham, FORCE_COLOR", {"TZ": "Pacific/Chatham", "FORCE_COLOR": "1", "TERM": "xterm"}),
    Round(7, True, True, "America/St_Johns, umask 077", {"TZ": "America/St_Johns"}, umask=0o077),
    Round(8, False, True, "256 open files, no HOME", {}, open_files=256, no_home=True),
    Round(
        9, True, True, "PYTHON* set",
        {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "default", "PYTHONNOUSERSITE": "1"},
    ),
    Round(10, False, True, "no Debian programs, long TMPDIR", {"LANG": "C.UTF-8"}, long_tmpdir=True, no_debian=True),
)  # fmt: skip


@dataclass(frozen=True)
class User:
    name: str
    uid: int
    gid: int


# The copies


def source_files() -> list[Path]:
    """What git knows of this checkout and what it would add, relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, encoding="utf-8",
    ).stdout  # fmt: skip
    return sorted(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


def digest_of(files: Sequence[Path]) -> str:
    """One word for the state of the tree, without the table and the record, which are written at its end."""
    whole = hashlib.sha256()
    for name in files:
        if ROOT / name not in (DOCUMENT, RECORD):
            whole.update(os.fsencode(name) + b"\0" + (ROOT / name).read_bytes() + b"\0")
    return whole.hexdigest()[:16]


def closed_folder(user: User) -> Path | None:
    """The first folder above this interpreter that `user` may not enter, as /root is where pyenv is in there."""
    python = Path(sys.base_prefix) / "bin"
    closed = (folder for folder in reversed(python.parents) if not folder.stat().st_mode & stat.S_IXOTH)
    return next(closed, None) if user.uid else None


# In a mount namespace of its own, an open folder over the closed one, with the interpreter in its place: where it is now,
# its libraries are found, too. Then as the user.
OPENED = """
set -e
asked=$(umask)
umask 022
mkdir -p "$3"
mount --bind "$2" "$3"
mount -t tmpfs -o mode=755 none "$1"
mkdir -p "$2"
mount --move "$3" "$2"
user=$4 group=$5
shift 5
umask "$asked"
exec setpriv --reuid "$user" --regid "$group" --clear-groups -- "$@"
"""


def command_as(user: User, command: Sequence[str], place: Path) -> tuple[list[str], dict[str, Any]]:
    """`command` as `user`, whom this interpreter may be closed to: a command, and arguments of Popen."""
    closed = closed_folder(user)
    if closed is None:
        return list(command), as_user(user)
    into = ["unshare", "--mount", "--propagation", "private", "sh", "-c", OPENED, "sh"]
    words = [str(closed), sys.base_prefix, str(place / "python"), str(user.uid), str(user.gid)]
    return [*into, *words, *command], {}


def as_user(user: User) -> dict[str, Any]:
    """Arguments of Popen for a process of this user."""
    if user.uid == os.geteuid():
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


def prepare(user: User, place: Path, files: Sequence[Path], digest: str) -> Path:
    """A copy of the checkout that belongs to `user`, with an environment of its own. Returns its folder."""
    home = place / user.name
    checkout, stamp = home / "checkout", home / "state"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return checkout
    stamp.unlink(missing_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = json.dumps(project) + (ROOT / "constraints.txt").read_text(encoding="utf-8") + sys.version
    needed = hashlib.sha256(needs.encode()).hexdigest()
    for old in checkout.iterdir() if checkout.exists() else ():
        if old.name != ".venv":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name in files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name, follow_symlinks=False)
    installed = checkout / ".venv" / "installed"
    what = ["--editable", ".", "--no-deps"]  # what is compiled lay among the sources, and has gone with the old ones
    if not installed.exists() or installed.read_text(encoding="utf-8") != needed:
        print(f"installing for {user.name} in {checkout}", flush=True)
        shutil.rmtree(checkout / ".venv", ignore_errors=True)
        subprocess.run([sys._base_executable, "-m", "venv", checkout / ".venv"], check=True)
        what = ["--editable", ".[dev]"]
    subprocess.run(
        [
            checkout / ".venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--constraint", "constraints.txt", *what,
        ],
        cwd=checkout, check=True,
    )  # fmt: skip
    installed.write_text(needed, encoding="utf-8")
    for path in (home, *home.rglob("*")):
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    stamp.write_text(digest, encoding="utf-8")
    return checkout


# The surroundings


def path_without(commands: Sequence[str], folder: Path) -> str:
    """PATH with other folders in place of those that hold one of `commands`: everything else of them, by links."""
    kept = []
    for number, each in enumerate(os.environ["PATH"].split(os.pathsep)):
        source = Path(each)
        if any((source / command).exists() for command in commands):
            mirror = folder / str(number)
            shutil.rmtree(mirror, ignore_errors=True)
            mirror.mkdir(parents=True)
            for program in source.iterdir():
                if program.name not in commands:
                    (mirror / program.name).symlink_to(program)
            each = str(mirror)
        kept.append(each)
    return os.pathsep.join(kept)


@contextmanager
def hogs() -> Iterator[None]:
    """Processes that take all the CPU they get."""
    with ExitStack() as running:
        for _ in range(HOGS):
            hog = running.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            running.callback(hog.kill)
        yield


class TimeWaits(threading.Thread):
    """Opens and closes connections on loopback, so that 5,000 and more are in TIME_WAIT all along: `seen`, once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[int] = []

    def __enter__(self) -> Self:
        self._leave(TIME_WAITS)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join()
        self._listener.close()

    def run(self) -> None:
        # As many as end: those of the beginning all end at once, when the others have taken their place.
        began, left = time.monotonic(), 0
        while not self._stopping.is_set():
            self.seen.append(in_time_wait())
            due = int((time.monotonic() - began) * 1.1 * TIME_WAITS / TIME_WAIT_SECONDS)
            self._leave(due - left)
            left = due
            self._stopping.wait(1.0)

    def _leave(self, count: int) -> None:
        for _ in range(count):
            with socket.create_connection(self._listener.getsockname()), self._listener.accept()[0] as accepted:
                accepted.shutdown(socket.SHUT_WR)  # who closes first is who waits


def in_time_wait() -> int:
    told = re.search(r"^TCP: .*\btw (\d+)", Path("/proc/net/sockstat").read_text(encoding="utf-8"), re.MULTILINE)
    return int(told[1]) if told else 0


def environment(this: Round, home: Path) -> dict[str, str]:
    """All that a round's process has in its environment."""
    temporary = home / "tmp" / (("a-temporary-folder-with-a-long-name-" * 3) if this.long_tmpdir else "")
    temporary.mkdir(parents=True, exist_ok=True)
    path = path_without(DEBIAN_COMMANDS, home / "programs") if this.no_debian else os.environ["PATH"]
    return {
        "PATH": path,
        "HOME": str(home / "none" if this.no_home else home),
        "TMPDIR": str(temporary),
        **this.env,
    }


# A round


def run_round(this: Round, user: User, checkout: Path, place: Path, seed: int, words: Sequence[str]) -> dict[str, Any]:
    """Runs the suite once. Returns the row of the table."""
    home = checkout.parent
    shutil.rmtree(home / "tmp", ignore_errors=True)
    env = environment(this, home)
    for path in ((home / "tmp"), *(home / "tmp").rglob("*")):
        os.chown(path, user.uid, user.gid)
    report, log = home / "tmp" / "report.xml", place / f"round-{this.number}.log"
    command = [
        str(checkout / ".venv/bin/python"), "-m", "pytest", *(words or SUITE), "--numprocesses", "4",
        "--dist", "worksteal", "-p", "no:cacheprovider", f"--randomly-seed={seed}",
        f"--junitxml={report}", "-o", "junit_family=xunit2",
    ]  # fmt: skip

    command, identity = command_as(user, command, place)

    def limit() -> None:
        if this.open_files:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (this.open_files, hard))

    with ExitStack() as load, open(log, "wb") as output:
        waits = load.enter_context(TimeWaits()) if this.loaded else None
        if this.loaded:
            load.enter_context(hogs())
        began, before = time.monotonic(), os.times()
        process = subprocess.Popen(
            command, env=env, umask=this.umask, preexec_fn=limit, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=checkout, **identity,
        )  # fmt: skip
        try:
            status = process.wait(ROUND_SECONDS)
        except BaseException as reason:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise
            status = -signal.SIGKILL
        minutes, after = (time.monotonic() - began) / 60, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "round": this.number,
        "user": user.name,
        "time_wait": min(waits.seen) if waits else None,
        "seed": seed,
        "minutes": minutes,
        "cpu_minutes": cpu / 60,
        "status": status,
        **outcomes(report),
    }


def outcomes(report: Path) -> dict[str, Any]:
    """Counted from pytest's report: tests that passed and were skipped, and the names of those that did not pass."""
    if not report.exists():
        return {"passed": 0, "skipped": 0, "failed": ["(no report: the run did not end)"]}
    cases = [*ET.parse(report).getroot().iter("testcase")]  # what pytest wrote
    skipped = sum(case.find("skipped") is not None for case in cases)
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    names = sorted({f"{case.get('classname', '')}.{case.get('name', '')}" for case in failed})
    return {"passed": len(cases) - skipped - len(failed), "skipped": skipped, "failed": names}


# The table


def table(rows: dict[int, dict[str, Any]]) -> str:
    """The last run of each round, with the code that it was of."""
    lines = [
        "| round | as | beside it | surroundings | order (seed) | passed | skipped | failed | minutes | of CPU | code |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for this in ROUNDS:
        row = rows.get(this.number)
        if row is None:
            continue
        load = f"{HOGS} CPU hogs, {row['time_wait']:,} or more in TIME_WAIT" if this.loaded else "nothing"
        failed = str(len(row["failed"])) if row["status"] in (0, 1) else f"{len(row['failed'])}, ended {row['status']}"
        lines.append(
            f"| {this.number} | {row['user']} | {load} | {this.says} | {row['seed']} "
            f"| {row['passed']:,} | {row['skipped']} | {failed} | {row['minutes']:.1f} | {row['cpu_minutes']:.1f} "
            f"| {row.get('code', 'not known')} |"
        )
    lines += [
        "",
        f"On {os.cpu_count()} cores, CPython {sys.version.split()[0]}, Linux {os.uname().release.partition('-')[0]}.",
    ]
    return "\n".join(lines)


def write(text: str, document: Path) -> None:
    """Puts the table between its two markers."""
    whole = document.read_text(encoding="utf-8")
    before, marker, rest = whole.partition(BEGIN)
    _, closing, after = rest.partition(END)
    if not (marker and closing):
        raise SystemExit(f"{document} has no place for the table: {BEGIN} and {END}, each on a line of its own")
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


# The command


def numbers(text: str) -> list[int]:
    """`1,3-5` as [1, 3, 4, 5]."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    unknown = sorted(set(found) - {this.number for this in ROUNDS})
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no round {unknown[0]}: they are 1 to {len(ROUNDS)}")
    return found


def users(ordinary: str) -> dict[bool, User]:
    """Who runs the rounds as root and the others."""
    own = pwd.getpwuid(os.geteuid())
    me = User(own.pw_name, own.pw_uid, own.pw_gid)
    if me.uid:
        print(f"this is not started by root: all rounds run as {me.name}", flush=True)
        return {True: me, False: me}
    other = pwd.getpwnam(ordinary)
    return {True: me, False: User(other.pw_name, other.pw_uid, other.pw_gid)}


def code() -> str:
    """What git says of this checkout: a revision, or one with changes (`-dirty`)."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    ).stdout.strip()


def remembered(path: Path) -> dict[int, dict[str, Any]]:
    """The last run of each round, by its number."""
    if not path.exists():
        return {}
    return {int(number): row for number, row in json.loads(path.read_text(encoding="utf-8"))["rows"].items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=numbers, default=[this.number for this in ROUNDS], metavar="1,3-5")
    parser.add_argument("--fresh", action="store_true", help="forget what was run before")
    parser.add_argument("--place", type=Path, default=PLACE, help=f"where the copies are made (default {PLACE})")
    parser.add_argument("--user", default="nobody", help="the ordinary user (default nobody)")
    parser.add_argument("--seed", type=int, help="of the order of tests; default: another one in each round")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    parser.add_argument("words", nargs="*", help="after --: what pytest is to run instead of all tests")
    asked = parser.parse_args()

    # The suite is in a session of its own: whoever ends this is to end the suite as well.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    files = source_files()
    digest = digest_of(files)
    place: Path = asked.place
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    os.umask(0o022)
    rows = {} if asked.fresh or asked.words else remembered(RECORD)
    who = users(asked.user)
    for this in ROUNDS:
        if this.number not in asked.rounds or rows.get(this.number, {}).get("state") == digest:
            continue
        checkout = prepare(who[this.root], place, files, digest)
        seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(2**31)
        print(f"round {this.number}: {who[this.root].name}, {this.says}, seed {seed}", flush=True)
        row = run_round(this, who[this.root], checkout, place, seed, asked.words)
        print(f"  {row['passed']} passed, {row['skipped']} skipped, {row['minutes']:.1f} min", flush=True)
        row |= {"state": digest, "code": code()}
        for name in row["failed"]:
            print(f"  FAILED {name}; see {place}/round-{this.number}.log", flush=True)
        rows[this.number] = row
        if not asked.words:  # then it was not the whole suite
            RECORD.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    text = table(rows)
    print(text)
    if not (asked.no_write or asked.words):
        write(text, DOCUMENT)
    return 1 if any(row["failed"] or row["status"] for row in rows.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; rounds that were done are kept: start it again", file=sys.stderr)
        sys.exit(130)
