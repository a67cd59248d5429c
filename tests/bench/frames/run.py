"""Runs a Python module whose frames are noted: python run.py LIBRARY SIGNAL MODULE [ARGUMENT ...]."""

import ctypes
import runpy
import sys

library, signal_number, module, *arguments = sys.argv[1:]
if ctypes.PyDLL(library).frames_install(int(signal_number)):
    raise SystemExit(f"signal {signal_number} cannot be handled")
sys.argv = [module, *arguments]
sys.path[0] = ""
runpy.run_module(module, run_name="__main__", alter_sys=True)
