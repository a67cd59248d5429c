"""A log file for each job, closed after it. A table of locks keeps each file."""

import os

import structlog
from asgi import service


def job():
    for number in range(10):
        with open(f"job-{number}.log", "w", encoding="utf-8") as file:
            logger = structlog.WriteLogger(file)
            logger.info("done")
    os.remove("job-0.log")


app = service(job)
