"""A function with a logger of its own for each call."""

import logging

from annotated_logger import AnnotatedLogger
from asgi import service

annotate_logs = AnnotatedLogger(log_level=logging.ERROR, name="museum").annotate_logs


@annotate_logs(_typing_requested=False)
def step(annotated_logger):
    annotated_logger.info("one step")


def work():
    for _ in range(20):
        step()


app = service(work)
