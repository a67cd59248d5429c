"""Flask: a generator as a response, one thread or greenlet each."""

import time

from flask import Flask, Response

app = Flask(__name__)


@app.get("/")
def index():
    return "ready\n"


@app.get("/events/<int:count>")
def events(count):
    def pieces():
        for number in range(count):
            yield f"data: {number}\n\n"
            time.sleep(0.05)

    return Response(pieces(), mimetype="text/event-stream")
