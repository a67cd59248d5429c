"""A small Debian of another suite in a folder: debootstrap makes it, and a command runs in it with this checkout at its place.

What the machine is configured to download from is what the root is made from and downloads from: the mirror is asked of
apt, and pip's configuration, what it refers to and the certificates are bound in. All mounts are made in a mount namespace of
the command's own, so nothing is left of them when it ends.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["CACHE", "CHECKOUT", "ENVIRONMENTS", "Root", "why_no_root"]

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(
    os.environ.get("HIGHWATER_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "highwater"
)

# One virtual environment for each interpreter and checkout; bound into the roots.
ENVIRONMENTS = CACHE / "environments"

_PACKAGES = "python3,python3-venv,python3-dev,gcc,libc6-dev,make,git,ca-certificates"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_OPEN_ENDED = ("/", "/opt", "/usr", "/home", "/tmp", "/var", "/etc", "/root")
_SYSTEM = ("/proc", "/sys", "/dev")
_VARIABLES = re.compile(r"PIP_|.*(_CA_|SSL_|CERT|_PROXY$|_proxy$)")


def why_no_root() -> str | None:
    """Why no Debian can be made here; None if it can."""
    if os.geteuid() != 0:
        return "a Debian with it can be made by root only (debootstrap and chroot)"
    missing = [command for command in ("debootstrap", "unshare", "chroot") if shutil.which(command) is None]
    if missing:
        return f"to make a Debian with it, first apt-get install {' '.join(missing)}"
    if _mirror() is None:
        return "apt is configured with no mirror of Debian to make one from"
    return None


class Root:
    """The Debian of one suite, in the cache."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.folder = CACHE / "roots" / suite

    def make(self) -> None:
        """Make it if it is not there; raises CalledProcessError with debootstrap's log on stderr."""
        if self.folder.exists():
            return
        unfinished = self.folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        print(f"making a Debian {self.suite} in {self.folder} (some minutes, once)", file=sys.stderr, flush=True)
        keyring = [f"--keyring={_KEYRING}"] if Path(_KEYRING).exists() else []
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", *keyring, self.suite]
        with open(self.folder.with_suffix(".log"), "w", encoding="utf-8") as log:
            try:
                subprocess.run([*command, str(unfinished), _mirror() or ""], stdout=log, stderr=log, check=True)
            except subprocess.CalledProcessError:
                print(Path(log.name).read_text(encoding="utf-8")[-2000:], file=sys.stderr)
                raise
        unfinished.rename(self.folder)

    def install(self, packages: list[str]) -> None:
        """Install Debian packages in it; of several names, "one|another", the first there is. Raises CalledProcessError."""
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
        self._run([*quiet, "update"])
        there = [next((name for name in names.split("|") if self._has(name)), names) for names in packages]
        self._run([*quiet, "install", "-y", "--no-install-recommends", *there])

    def _run(self, words: list[str]) -> None:
        subprocess.run(self.enter(words), cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)

    def _has(self, package: str) -> bool:
        # `apt-cache show` knows names, too, that other packages only mention.
        words = self.enter(["apt-get", "install", "--simulate", "-qq", package])
        return subprocess.run(words, cwd=CHECKOUT, check=False, capture_output=True).returncode == 0

    def enter(self, words: list[str]) -> list[str]:
        """The command that runs `words` in the root, in the checkout, with this environment's pip and certificates."""
        # Over itself: what is run in it finds a root that is a mount, as on any machine, and can make namespaces of its own.
        folder = shlex.quote(str(self.folder))
        mounts = ["set -e", f"mount --bind {folder} {folder}"]
        for source in (*_SYSTEM, *_shared()):
            target = f"{self.folder}{source}"
            make = f"mkdir -p {shlex.quote(target)}"
            if not os.path.isdir(source):
                make = f"mkdir -p {shlex.quote(os.path.dirname(target))} && touch {shlex.quote(target)}"
            mounts.append(f"{make} && mount --rbind {shlex.quote(source)} {shlex.quote(target)}")
        kept = {
            name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name) or _VARIABLES.match(name)
        }
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        kept |= {"HOME": str(Path.home()), "PATH": path, "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
        assignments = [f"{name}={value}" for name, value in kept.items()]
        inside = f"cd {shlex.quote(str(CHECKOUT))} && exec {shlex.join(words)}"
        mounts.append(
            f"exec env -i {shlex.join(assignments)} chroot {shlex.quote(str(self.folder))} /bin/sh -c {shlex.quote(inside)}"
        )
        return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", "\n".join(mounts)]


def _mirror() -> str | None:
    """What apt downloads Debian itself from on this machine, not the updates of one release."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    rows = [line.split() for line in asked.stdout.splitlines()]
    return next((row[2] for row in rows if row[:2] == ["Debian", "Debian"] and len(row) > 2), None)


def _shared() -> list[str]:
    """What is the machine's and must be in the root at the same place: the checkout, name resolution, downloads' settings."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, encoding="utf-8", check=False
    ).stdout
    files = re.findall(r"^\s+(/\S+), exists: True$", told, re.MULTILINE)
    values = " ".join(re.findall(r"^\s+(?:[\w-]+\.[\w-]+: |PIP_\w+=)(.*)$", told, re.MULTILINE))
    named = re.findall(r"(?:file://)?/[^\s'\"]+", re.sub(r"\bhttps?://\S+", "", values))
    found = [str(CHECKOUT), str(ENVIRONMENTS), "/etc/resolv.conf", "/etc/hosts", "/etc/apt/apt.conf.d", *files]
    # The pages of an index in a folder refer to the files beside it.
    found.extend(str(Path(urlsplit(name).path).parent) if name.startswith("file://") else name for name in named)
    found.extend(value for name, value in os.environ.items() if "CERT" in name or "_CA_" in name)
    there = {path for path in found if path.startswith("/") and os.path.exists(path) and path not in _OPEN_ENDED}
    return sorted(there)
