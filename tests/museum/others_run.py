"""Runs an exhibit's app in its own interpreter under another tool, used as its manual says. Nothing of ours is imported.

python others_run.py TOOL FOLDER OUT ARGUMENTS...   ARGUMENTS as for python: `-m MODULE ...` or `FILE ...`

TOOL        tracemalloc: a snapshot after a warm-up, then `compare_to(it, "lineno")`
            objgraph: `growth()` after a warm-up, then `growth()` again with a chain of references to one of each type that grew
            memray: `memray run --aggregate --trace-python-allocators`; its file is read when the app has ended
FOLDER      where memray and objgraph are installed
OUT         a file; for the first two one line of JSON a report: seconds since the start, and the first three lines
"""

import json
import runpy
import sys
import threading
import time

WARM_SECONDS = 20.0
AGAIN_SECONDS = 20.0
FIRST = 3


def main():
    tool, folder, out, *arguments = sys.argv[1:]
    sys.path.append(folder)
    sys.path.pop(0)  # the folder of this file
    if tool == "memray":
        from memray.commands import main as memray

        sys.exit(memray(["run", "--quiet", "--aggregate", "--trace-python-allocators", "-o", out, *arguments]))
    report = {"tracemalloc": tracemalloc_reports, "objgraph": objgraph_reports}[tool]()
    threading.Thread(target=reports, args=(report, out), daemon=True).start()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, arguments[0].rpartition("/")[0])
        runpy.run_path(arguments[0], run_name="__main__")


def reports(report, out):
    began = time.monotonic()
    time.sleep(WARM_SECONDS)
    report()
    while True:
        time.sleep(AGAIN_SECONDS)
        lines = report()
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps({"seconds": time.monotonic() - began, "lines": lines[:FIRST]}) + "\n")


def tracemalloc_reports():
    import tracemalloc

    tracemalloc.start()
    snapshots = []

    def report():
        snapshots.append(tracemalloc.take_snapshot())
        del snapshots[1:-1]
        return [str(line) for line in snapshots[-1].compare_to(snapshots[0], "lineno")[:FIRST]]

    return report


def objgraph_reports():
    import objgraph

    def report():
        lines = []
        for name, count, more in objgraph.growth(limit=FIRST):
            objects = objgraph.by_type(name)
            chain = objgraph.find_backref_chain(objects[-1], objgraph.is_proper_module, max_depth=12) if objects else []
            lines.append(f"{name} {count} +{more}: " + " <- ".join(_short(one) for one in reversed(chain)))
        return lines

    return report


def _short(one):
    return f"{type(one).__module__}.{type(one).__name__} {getattr(one, '__name__', '')}".strip()


if __name__ == "__main__":
    main()
