"""The remedy for each obstacle to attaching, by the place where the service runs."""

from __future__ import annotations

from typing import Final

__all__ = ["REMEDIES"]

_WATCH: Final = "`diagnostics watch PID` reads the process from outside, without anything being put into it"


def _all(text: str) -> dict[str, str]:
    return dict.fromkeys(("linux", "docker", "kubernetes"), text)


REMEDIES: Final[dict[str, dict[str, str]]] = {
    "no_process": {
        "linux": "ps -e -o pid,args shows what runs",
        "docker": "a container's numbers are its own: on the host, `docker inspect -f '{{.State.Pid}}' NAME` tells the host's",
        "kubernetes": "attach from an ephemeral container of the pod with `kubectl debug --target=CONTAINER`, or set "
        "shareProcessNamespace: true: else the service's processes are not seen",
    },
    "foreign_proc": _all("mount this PID namespace's own: mount -t proc proc /proc"),
    "itself": _all("give the service's pid"),
    "not_python": _all("give the pid of the Python process itself, and not of a shell or supervisor that started it"),
    "zombie": _all("attach to the process that took its place"),
    "disk_wait": _all(f"look what it waits for in /proc/PID/stack, and try again once it runs; {_WATCH}"),
    "stopped": _all("continue it: kill -CONT PID"),
    "traced": _all("detach the other debugger first: a process has one tracer at a time"),
    "seccomp": {
        "linux": "run it outside of the sandbox that filters ptrace",
        "docker": "docker run --cap-add SYS_PTRACE (before kernel 4.8 also --security-opt seccomp=unconfined)",
        "kubernetes": "securityContext.seccompProfile.type: RuntimeDefault lets ptrace through from kernel 4.8 on; else "
        "Unconfined for this container",
    },
    "another_user": {
        "linux": "run it as the service's user, or with sudo",
        "docker": "docker exec -u with the service's user, or as root: --user 0 --cap-add SYS_PTRACE",
        "kubernetes": "securityContext.runAsUser of the service, or runAsUser: 0 with capabilities.add: [SYS_PTRACE] "
        "(kubectl debug --profile=general --custom=docs/deploy/attach.yaml: the image's own user has no capabilities)",
    },
    "not_permitted": {
        "linux": "sudo, or setcap cap_sys_ptrace+ep on a copy of this interpreter",
        "docker": "--cap-add SYS_PTRACE for the container that attaches",
        "kubernetes": "capabilities.add: [SYS_PTRACE] for the container that attaches",
    },
    "ptrace_scope": {
        "linux": "sudo, or sysctl kernel.yama.ptrace_scope=0",
        "docker": "--cap-add SYS_PTRACE; the setting is the host's",
        "kubernetes": "capabilities.add: [SYS_PTRACE]; the setting is the node's",
    },
    "ptrace_off": _all(f"boot with another setting; {_WATCH}"),
    "static": _all(f"run the service by an interpreter that exports its functions (all distributions' do); {_WATCH}"),
    "too_old": _all(f"run the service on Python 3.11 or newer; {_WATCH}"),
    "too_new": _all(f"upgrade highwater-diagnostics; {_WATCH}"),
    "machine": _all(f"Python 3.11 to 3.13 are attached to on x86-64 only, Python 3.14 everywhere; {_WATCH}"),
    "remote_debugging_off": _all(
        "start the service without PYTHON_DISABLE_REMOTE_DEBUG and -X disable-remote-debug, by an interpreter that was not "
        f"built with --without-remote-debug; {_WATCH}"
    ),
    "attached": _all("its monitor shows it already; to begin anew, first `diagnostics attach --detach PID`"),
    "no_folder": {
        "linux": "give it one: TMPDIR, /tmp",
        "docker": "--tmpfs /tmp",
        "kubernetes": "an emptyDir mounted at /tmp",
    },
}
