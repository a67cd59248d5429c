"""Starts the monitor as a process beside the service, and holds on to it no more than needed.

The service binds the monitor's address itself, so that a port in use is an error here, now and readable, and the address
is known before anything runs. The monitor ends by itself when its standard input ends: that is when the service is gone,
however it went.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import RefusedError, UsageError
from ...protocol import default_root, private_folder

__all__ = ["DEFAULT_LISTEN", "MonitorProcess", "bind", "hold", "is_held", "parse_listen", "start_monitor"]

DEFAULT_LISTEN = os.environ.get("DIAGNOSTICS_LISTEN", "127.0.0.1:6060")

_STOP_SECONDS = 5.0
# Another worker of this service may have bound the address and not locked the monitor's folder yet.
_HOLD_SECONDS = 2.0


@dataclass
class MonitorProcess:
    """A monitor that this process started, or found (`process` is None then, and `stop` does nothing).

    url        its address, `http://127.0.0.1:6060`
    directory  the folder whose `agents/` holds the sockets of this monitor's agents
    """

    url: str
    directory: Path
    process: subprocess.Popen[bytes] | None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def alive(self) -> bool:
        return self.process is None or self.process.poll() is None

    def stop(self) -> None:
        """End the monitor: close its standard input, then SIGTERM, then SIGKILL."""
        if self.process is None:
            return
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def parse_listen(listen: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT` -> host and port. Raises UsageError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{listen!r} is not an address", remedy="write HOST:PORT, for example 127.0.0.1:6060")
    return host.strip("[]"), int(port)


def bind(listen: str, option: str = "--listen HOST:PORT") -> socket.socket:
    """A listening socket at `listen`. Raises UsageError (in use, no such address) and RefusedError (open to others).

    option  the option by which the caller's user can choose another address, named in the errors' remedy

    A client of the monitor can capture the service's memory, so an address that is not loopback needs a token.
    """
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not _is_loopback(host) and not os.environ.get("DIAGNOSTICS_TOKEN"):
        raise RefusedError(
            f"the monitor would listen on {listen}, which others can reach, without a token",
            remedy="listen on 127.0.0.1, or set DIAGNOSTICS_TOKEN",
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        in_use = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"the monitor cannot listen on {listen}: {error.strerror or error}",
            remedy=f"{'another process has the port; ' if in_use else ''}choose another address with {option} or "
            "DIAGNOSTICS_LISTEN; port 0 takes any free one",
            code="address_in_use" if in_use else None,
        ) from error
    return listener


@contextlib.contextmanager
def hold(root: Path) -> Iterator[int]:
    """Lock a monitor's folder (flock); yields the descriptor. A child that inherits the descriptor keeps the lock.

    The lock tells whether the monitor or another program has an address in use. It excludes nothing: of two monitors that
    share a folder the first has the lock.
    """
    import fcntl

    descriptor = os.open(root / "monitor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Another monitor holds the lock, or this file system has no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(root: Path) -> bool:
    """Whether a monitor has locked this folder, or does within `_HOLD_SECONDS`."""
    import fcntl

    deadline = time.monotonic() + _HOLD_SECONDS
    while True:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(root / "monitor.lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def address_of(listener: socket.socket) -> str:
    """The bound address as `HOST:PORT`."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def start_monitor(
    listen: str = DEFAULT_LISTEN,
    directory: Path | None = None,
    *,
    unless_running: bool = False,
    option: str = "start_monitor('HOST:PORT')",
) -> MonitorProcess:
    """Start `diagnostics monitor` at `listen` (port 0: any free one).

    directory       where agents register and artifacts are kept; default: DIAGNOSTICS_DIR, or a folder of this address
    unless_running  return the monitor of this folder where one runs: another worker of this service may have started it
    option          the option by which the caller's user can choose another address, for the remedy where it is in use

    Under `diagnostics run` the monitor of that command is returned. Raises UsageError, RefusedError.
    """
    running_url = os.environ.get("DIAGNOSTICS_MONITOR_URL")
    if running_url:
        return MonitorProcess(running_url, Path(default_root()), None)
    try:
        listener = bind(listen, option)
    except UsageError as error:
        root = directory or Path(default_root(listen))
        if unless_running and error.code == "address_in_use" and is_held(root):
            return MonitorProcess(f"http://{listen}", root, None)
        raise
    with listener:
        address = address_of(listener)
        root = directory or Path(default_root(address))
        private_folder(root)
        with hold(root) as held:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "diagnostics", "monitor",
                    "--fd", str(listener.fileno()), "--dir", str(root), "--until-stdin-closes",
                ],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno(), held],
                # A process group of its own, because Ctrl-C is for the service. The same session, because with autogroups
                # (sched(7)) the kernel shares CPU time between sessions, and a nice value counts within one only.
                process_group=0,
            )  # fmt: skip
    return MonitorProcess(f"http://{address}", root, process)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
