"""Celery with its filesystem broker, so that no other server is needed. Run as a program, it asks for tasks.

python celery_app.py SECONDS    sends tasks and waits for each until SECONDS are over, at least one
"""

import sys
import time
from pathlib import Path

from celery import Celery

here = Path.cwd()
for name in ("queue", "done", "results"):
    (here / name).mkdir(exist_ok=True)
app = Celery("celery_app", broker="filesystem://", backend=f"file://{here}/results")
app.conf.broker_transport_options = {
    "data_folder_in": str(here / "queue"),
    "data_folder_out": str(here / "queue"),
    "control_folder": str(here / "done"),
}


@app.task(name="add")
def add(left, right):
    return left + right


def main():
    until = time.monotonic() + float(sys.argv[1])
    while True:
        assert add.delay(2, 3).get(timeout=30) == 5
        if time.monotonic() > until:
            return


if __name__ == "__main__":
    main()
