"""What a look at the connections of each server costs, in microseconds a connection.

    python tests/bench/bench_servers.py [--connections 1000] [--rounds 20]

Starts each server with an app whose streams say one thing and then wait, opens connections to it, and times looks of the
agent's own code inside of that process: the first look, which meets every connection, and those that follow (the least of
all rounds, since the machine may be busy). Half of the connections stream, half are idle.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]

# In the service: a thread that does what the agent's does, when it is told to, and answers in a file.
LOOKER = """
import json, os, sys, threading, time

def watch(rounds):
    from diagnostics.agent.servers import Servers
    from diagnostics.agent.servers import tasks as module
    from diagnostics.agent.servers import uvicorn
    module.rest = uvicorn.rest = lambda: None  # its waiting is not a cost of the service's
    while not os.path.exists("go"):
        time.sleep(0.05)
    servers = Servers()
    times = []
    for _ in range(rounds + 1):
        began = time.thread_time()
        look = servers.look()
        times.append(time.thread_time() - began)
        time.sleep(0.01)
    told = servers.to_json(look, 1)
    with open("answer.part", "w") as file:
        json.dump({"first": times[0], "least": min(times[1:]), "told": told}, file)
    os.replace("answer.part", "answer")

threading.Thread(target=watch, args=(int(os.environ["ROUNDS"]),), daemon=True).start()
"""

ASGI = """
import looker
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    quick = scope["path"] == "/quick"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4" if quick else b"9")]})
    await send({"type": "http.response.body", "body": b"done", "more_body": not quick})
    while not quick and (await receive())["type"] != "http.disconnect":
        pass
"""
AIOHTTP = """
import looker, sys, asyncio
from aiohttp import web
async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"done")
    await asyncio.sleep(600)
async def quick(request):
    return web.Response(text="done")
app = web.Application()
app.add_routes([web.get("/stream", stream), web.get("/quick", quick)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, keepalive_timeout=600)
"""
TORNADO = """
import looker, sys, asyncio, tornado.web
class Stream(tornado.web.RequestHandler):
    async def get(self):
        self.write("done")
        await self.flush()
        await asyncio.sleep(600)
class Quick(tornado.web.RequestHandler):
    def get(self):
        self.write("done")
async def main():
    tornado.web.Application([("/stream", Stream), ("/quick", Quick)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(main())
"""
SANIC = """
import looker, sys, asyncio
from sanic import Sanic, text
app = Sanic("bench")
app.config.KEEP_ALIVE_TIMEOUT = app.config.RESPONSE_TIMEOUT = 600
@app.get("/stream")
async def stream(request):
    response = await request.respond()
    await response.send("done")
    await asyncio.sleep(600)
@app.get("/quick")
async def quick(request):
    return text("done")
if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), single_process=True, access_log=False)
"""

PYTHON = sys.executable
SANIC_PYTHON = str(ROOT / ".sanic/bin/python")
SERVERS = {
    "uvicorn": (ASGI, (PYTHON, "-m", "uvicorn", "app:app", "--port", "{port}", "--timeout-keep-alive", "600")),
    "hypercorn": (ASGI, (PYTHON, "-m", "hypercorn", "app:app", "--bind", "127.0.0.1:{port}", "--keep-alive", "600")),
    "granian": (ASGI, (PYTHON, "-m", "granian", "--interface", "asgi", "app:app", "--port", "{port}")),
    "aiohttp": (AIOHTTP, (PYTHON, "app.py", "{port}")),
    "tornado": (TORNADO, (PYTHON, "app.py", "{port}")),
    "sanic": (SANIC, (SANIC_PYTHON, "app.py", "{port}")),
}


def measure(server: str, connections: int, rounds: int) -> dict[str, float]:
    """Seconds of CPU time of the first look and of the least that followed, and what was seen."""
    source, command = SERVERS[server]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(source, encoding="utf-8")
        (folder / "looker.py").write_text(LOOKER, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "ROUNDS": str(rounds)}
        service = subprocess.Popen(
            [word.replace("{port}", str(port)) for word in command],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        clients: list[socket.socket] = []
        try:
            wait_for(port)
            for number in range(connections):
                client = socket.create_connection(("127.0.0.1", port), timeout=60)
                clients.append(client)
                client.sendall(
                    f"GET /{'stream' if number % 2 else 'quick'} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                )
                while b"done" not in client.recv(65536):
                    pass
            time.sleep(1)
            (folder / "go").touch()
            deadline = time.monotonic() + 120
            while not (folder / "answer").exists():
                if time.monotonic() > deadline:
                    raise SystemExit(f"{server}: no answer within 120 s")
                time.sleep(0.1)
            found: dict[str, float] = json.loads((folder / "answer").read_text(encoding="utf-8"))
            return found
        finally:
            for client in clients:
                client.close()
            os.killpg(service.pid, 9)
            service.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{port}/quick").close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("servers", nargs="*", default=list(SERVERS))
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{'server':10} {'connections':>11} {'requests':>9} {'first us':>9} {'then us':>8}   (CPU time a connection)")
    for server in arguments.servers:
        found = measure(server, arguments.connections, arguments.rounds)
        told = found["told"]
        first, least = (found[key] / arguments.connections * 1e6 for key in ("first", "least"))
        print(f"{server:10} {told.get('open')!s:>11} {told.get('requests')!s:>9} {first:9.2f} {least:8.2f}", flush=True)


if __name__ == "__main__":
    main()
