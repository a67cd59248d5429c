"""Found by Python at start-up because `diagnostics run` put this folder on PYTHONPATH. Loads the agent, changes nothing else.

This file runs in other people's services before any of their code, so it takes away its own traces: the folder leaves
sys.path, and a sitecustomize that the service or the distribution has is run as if this one were not there.
"""

import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_PRIVATE_NAME = "_highwater_diagnostics"


def _run_the_other_sitecustomize() -> None:
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    this = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        # Python's import of this very file is still under way and looks for it under its name.
        sys.modules.setdefault("sitecustomize", this)


def _is_tool() -> bool:
    # multiprocessing's bookkeeper is started with the same environment and never serves.
    return any("multiprocessing.resource_tracker" in word for word in sys.orig_argv)


def _load_agent() -> None:
    package = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
    spec = importlib.util.spec_from_file_location(
        _PRIVATE_NAME, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package at {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PRIVATE_NAME] = module
    spec.loader.exec_module(module)
    importlib.import_module(f"{_PRIVATE_NAME}.agent.inject.lookout").start(
        always=os.environ.get("DIAGNOSTICS_AGENT") == "always"
    )


_run_the_other_sitecustomize()
if os.environ.get("DIAGNOSTICS_DIR") and not _is_tool():
    try:
        _load_agent()
    except Exception as error:
        # The service must start whatever is wrong with its diagnostics; that it has none must be seen.
        print(f"diagnostics: the agent could not be loaded: {type(error).__name__}: {error}", file=sys.stderr)
