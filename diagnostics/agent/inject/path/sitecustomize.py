"""Found by Python at start-up because `diagnostics run` put this folder on PYTHONPATH. Loads the agent, changes nothing else.

This file runs in other people's services before any of their code, so it takes away its own traces: the folder leaves
sys.path, and a sitecustomize that the service or the distribution has is run as if this one were not there.

The law of this file: every Python that a service may start reads it, so its syntax is that of Python 2.7. Where the agent
cannot run, that is said in one line, once for a service.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_PRIVATE_NAME = "_highwater_diagnostics"
_OLDEST = (3, 11)
# Set once the line was written, so that child processes do not write it again.
_SAID = "DIAGNOSTICS_TOLD"


def _run_the_other_sitecustomize():  # type: () -> None
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    this = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:
        # Python 2 has the module's name in the message only.
        if getattr(error, "name", None) != "sitecustomize" and str(error) != "No module named sitecustomize":
            raise
    finally:
        # Python still imports this very file, and looks for it in sys.modules afterwards.
        sys.modules.setdefault("sitecustomize", this)


def _is_tool():  # type: () -> bool
    # multiprocessing's resource tracker inherits the environment and never serves.
    return any("multiprocessing.resource_tracker" in word for word in sys.orig_argv)


def _say(line):  # type: (str) -> None
    if sys.stderr is not None:
        sys.stderr.write("diagnostics: %s\n" % line)


def _say_that_python_is_too_old():  # type: () -> None
    if os.environ.get(_SAID):
        return
    os.environ[_SAID] = "1"
    _say(
        "process %d runs Python %d.%d.%d; the agent needs %d.%d or newer, so this service is read from outside only: "
        "memory and connections, no streams, no captures" % ((os.getpid(),) + sys.version_info[:3] + _OLDEST)
    )


def _load_agent():  # type: () -> None
    # Not by `importlib.util`: on Python 3.11 that imports contextlib and collections, half a MiB.
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import spec_from_file_location
    from importlib import import_module

    package = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
    spec = spec_from_file_location("_highwater_importer", os.path.join(package, "agent", "inject", "importer.py"))
    if spec is None or spec.loader is None:
        raise ImportError("no package at %s" % package)
    importer = module_from_spec(spec)
    spec.loader.exec_module(importer)
    importer.drop_annotations(importer)
    importer.Importer(_PRIVATE_NAME, package).import_package()
    import_module(_PRIVATE_NAME + ".agent.inject.launcher").start(_HERE)
    # It has done its work; where it has put in its audit hook, that keeps it.
    del sys.modules[_PRIVATE_NAME + ".agent.inject.launcher"], sys.modules[_PRIVATE_NAME + ".agent.inject"].launcher
    import_module(_PRIVATE_NAME + ".agent.inject.lookout").start(always=os.environ.get("DIAGNOSTICS_AGENT") == "always")


_run_the_other_sitecustomize()
if os.environ.get("DIAGNOSTICS_DIR"):
    if sys.version_info < _OLDEST:
        _say_that_python_is_too_old()
    elif not _is_tool():
        try:
            _load_agent()
        except Exception as error:
            # The service must start all the same, and say that it has no agent.
            _say("the agent could not be loaded: %s: %s" % (type(error).__name__, error))
