"""The simulator as its users see it: by the official client, by plain sockets, and as a process that starts and stops."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from relay.protocol.sse import EventDecoder
from relay.simulator.events import ChatEvents, text_of
from relay.simulator.grammar import STREAM_FAULTS, Fault, GrammarError, Script, parse

MESSAGES: Any = [{"role": "user", "content": "How high is the river?"}]
FAST = "pace=0,first=0"


class Simulator:
    """A simulator's process and its address."""

    def __init__(self, process: subprocess.Popen[str], base_url: str) -> None:
        self.process = process
        self.base_url = base_url
        address = urlsplit(base_url)
        assert address.hostname is not None
        assert address.port is not None
        self.address = (address.hostname, address.port)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = HTTPConnection(*self.address, timeout=60)
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, raw, headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(response.read())
        finally:
            connection.close()

    def chat(self, model: str, **more: Any) -> tuple[int, dict[str, str], Any]:
        return self.request("POST", "/v1/chat/completions", {"model": model, "messages": MESSAGES, **more})

    def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.request("GET", "/simulator/stats")[2]
        return answer

    def open_stream(self, model: str, version: str = "1.1", **more: Any) -> socket.socket:
        """A raw connection on which a streamed answer has been asked for."""
        connection = socket.create_connection(self.address, timeout=60)
        body = json.dumps({"model": model, "messages": MESSAGES, "stream": True, **more}).encode()
        head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: sim\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection


@contextmanager
def simulator(*flags: str, command: tuple[str, str] = ("-m", "relay.simulator"), **options: Any) -> Iterator[Simulator]:
    run = [sys.executable, *command, *flags]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"simulator (http://\S+:\d+/v1)\n", line)
            assert match, line
            yield Simulator(process, match[1])
        finally:
            process.terminate()
            _, complaints = process.communicate(timeout=60)
        assert complaints == ""
        assert process.returncode == 0


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 60 s"
        time.sleep(0.01)


def read_to(connection: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        received = connection.recv(65536)
        assert received, f"the connection ended before {mark!r}: {data!r}"
        data += received
    return data


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    while received := connection.recv(65536):
        data += received
    return data


# the official client


def with_client(running: Simulator, use: Callable[[openai.AsyncOpenAI], Any], **options: Any) -> Any:
    async def main() -> Any:
        options.setdefault("max_retries", 0)
        async with openai.AsyncOpenAI(base_url=running.base_url, api_key="none", **options) as client:
            return await use(client)

    return asyncio.run(main())


async def stream_chunks(client: openai.AsyncOpenAI, model: str, **more: Any) -> list[Any]:
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **more)
    async with stream:
        return [chunk async for chunk in stream]


def test_the_official_client_streams(shared: Simulator) -> None:
    model = f"sim:events=5,size=30,{FAST},seed=3"
    chunks = with_client(shared, lambda client: stream_chunks(client, model))
    assert [type(chunk).__name__ for chunk in chunks] == ["ChatCompletionChunk"] * 7
    assert chunks[0].choices[0].delta.role == "assistant"
    contents = [chunk.choices[0].delta.content for chunk in chunks[1:-1]]
    assert [len(content.encode()) for content in contents] == [30] * 5
    assert "".join(contents).encode() == text_of(parse(model))
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 6 + ["stop"]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].model == model
    assert all(chunk.usage is None for chunk in chunks)


def test_the_official_client_gets_usage_at_the_end(shared: Simulator) -> None:
    chunks = with_client(
        shared,
        lambda client: stream_chunks(client, f"sim:events=5,{FAST}", stream_options={"include_usage": True}),
    )
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (6, 5)


def test_the_official_client_gets_a_whole_answer(shared: Simulator) -> None:
    model = f"sim:events=5,size=10,{FAST}"
    answer = with_client(shared, lambda client: client.chat.completions.create(model=model, messages=MESSAGES))
    assert answer.choices[0].message.content.encode() == text_of(parse(model))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 5


def test_the_official_client_lists_models(shared: Simulator) -> None:
    async def names(client: openai.AsyncOpenAI) -> list[str]:
        return [model.id async for model in client.models.list()]

    assert "gpt-4o-mini" in with_client(shared, names)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error"), [("429", openai.RateLimitError), ("500", openai.InternalServerError)], ids=["429", "500"]
)
def test_the_official_client_meets_an_error_status(
    shared: Simulator, fault: str, error: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(error) as caught:
        with_client(
            shared,
            lambda client: client.chat.completions.create(model=f"sim:fault={fault}", messages=MESSAGES, stream=stream),
        )
    assert "name" in caught.value.message
    assert caught.value.response.headers.get("retry-after") == ("1" if fault == "429" else None)


def test_the_official_client_retries_an_error_that_ends(fresh: Simulator) -> None:
    chunks = with_client(fresh, lambda client: stream_chunks(client, f"sim:events=1,{FAST},fault=500x1"), max_retries=1)
    assert len(chunks) == 3
    assert (fresh.stats()["requests"], fresh.stats()["started"]) == (3, 1)


def test_the_official_client_meets_a_disconnect(fresh: Simulator) -> None:
    with pytest.raises(openai.APIConnectionError):
        with_client(fresh, lambda client: stream_chunks(client, f"sim:events=9,{FAST},fault=disconnect@4"))
    stats = fresh.stats()
    assert (stats["events_sent"], stats["aborted"], stats["open"]) == (4, 1, 0)


def test_the_official_client_meets_malformed_json(shared: Simulator) -> None:
    with pytest.raises(json.JSONDecodeError):
        with_client(shared, lambda client: stream_chunks(client, f"sim:events=9,{FAST},fault=malformed@4"))


def test_the_official_client_leaves_in_the_middle(fresh: Simulator) -> None:
    async def leave(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model="sim:events=inf,first=0", messages=MESSAGES, stream=True)
        async for _ in stream:
            break
        await stream.close()

    with_client(fresh, leave)
    until(lambda: fresh.stats()["open"] == 0)
    assert fresh.stats()["disconnected"] == 1


# the stream, on the wire


def events_of(connection: socket.socket) -> list[str]:
    """The data of all events of one chunked response, whose framing is checked on the way."""
    data = read_to(connection, b"0\r\n\r\n")
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        chunk, end, rest = rest[: int(size, 16)], rest[int(size, 16) :][:2], rest[int(size, 16) + 2 :]
        assert end == b"\r\n"
        if not chunk:
            break
        body += chunk
    decoder = EventDecoder()
    events = [event.data for event in decoder.feed(body)]
    assert decoder.eof() == 0
    return events


@pytest.mark.parametrize("events", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("size", [1, 24, 5000])
@pytest.mark.parametrize("pace", ["0", "1000000"])
def test_a_stream_is_complete_and_in_order(shared: Simulator, events: int, size: int, pace: str) -> None:
    model = f"sim:events={events},size={size},pace={pace},first=0,seed=5"
    with shared.open_stream(model) as connection:
        data = events_of(connection)
    assert data[-1] == "[DONE]"
    contents = [json.loads(item)["choices"][0]["delta"].get("content", "") for item in data[:-1]]
    assert "".join(contents).encode() == text_of(parse(model))
    assert len(data) == events + 3


def test_the_same_seed_gives_the_same_bytes() -> None:
    def answer(seed: int) -> list[str]:
        with simulator("--seed", str(seed)) as running, running.open_stream(f"sim:events=9,{FAST}") as connection:
            return events_of(connection)

    assert answer(1) == answer(1) != answer(2)


def test_events_keep_their_pace(shared: Simulator) -> None:
    start = time.monotonic()
    with shared.open_stream("sim:events=8,pace=40,first=0.1") as connection:
        read_to(connection, b"data: ")
        first = time.monotonic() - start
        read_to(connection, b"[DONE]")
        assert first >= 0.09
        assert time.monotonic() - start >= 0.1 + 8 / 40 - 0.02


def test_a_stalled_stream_stays_open_and_silent(fresh: Simulator) -> None:
    with fresh.open_stream(f"sim:{FAST},fault=stall@2") as connection:
        data = read_to(connection, b"\n\n\r\n")
        assert data.count(b"data: ") == 2
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert fresh.stats()["open"] == 1
    until(lambda: fresh.stats()["disconnected"] == 1)


def test_a_stall_before_the_first_event_still_has_a_head(shared: Simulator) -> None:
    with shared.open_stream(f"sim:{FAST},fault=stall@0") as connection:
        assert read_to(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_malformed_event_is_one_more_in_the_middle(shared: Simulator) -> None:
    with shared.open_stream(f"sim:events=2,{FAST},fault=malformed@2") as connection:
        data = events_of(connection)
    assert len(data) == 6
    with pytest.raises(json.JSONDecodeError):
        json.loads(data[2])
    assert data[-1] == "[DONE]"


def test_an_event_without_end_goes_on_and_on(fresh: Simulator) -> None:
    with fresh.open_stream(f"sim:size=1000,{FAST},fault=endless@1") as connection:
        received = b""
        while len(received) < 1_000_000:
            received += connection.recv(65536)
    assert received.count(b"\n\n") == 1
    until(lambda: fresh.stats()["open"] == 0)
    assert fresh.stats()["events_sent"] == 1


def test_a_client_that_does_not_read_stops_the_stream(fresh: Simulator) -> None:
    with fresh.open_stream(f"sim:events=inf,size=4000,{FAST}") as connection:
        sent = 0

        def full() -> bool:
            nonlocal sent
            before, sent = sent, fresh.stats()["bytes_sent"]
            time.sleep(0.1)
            return 0 < sent == before

        until(full)
        assert sent < 64_000_000  # what the kernel holds, and no more
        for _ in range(1000):
            connection.recv(65536)
        until(lambda: fresh.stats()["bytes_sent"] > sent)
    until(lambda: fresh.stats()["open"] == 0)


def test_a_client_that_leaves_before_the_first_byte_is_noticed(fresh: Simulator) -> None:
    connection = fresh.open_stream("sim:first=600")
    until(lambda: fresh.stats()["open"] == 1)
    connection.close()
    until(lambda: fresh.stats()["open"] == 0)
    assert fresh.stats()["disconnected"] == 1


def test_the_counts_add_up(fresh: Simulator) -> None:
    connections = [fresh.open_stream(f"sim:{FAST},fault=stall@1") for _ in range(3)]
    until(lambda: fresh.stats()["open"] == 3)
    with fresh.open_stream(f"sim:events=4,{FAST}") as connection:
        events_of(connection)
    with fresh.open_stream(f"sim:{FAST},fault=disconnect@2") as connection:
        assert read_to_end(connection).count(b"data: ") == 2
    for connection in connections:
        connection.close()
    until(lambda: fresh.stats()["open"] == 0)
    stats = fresh.stats()
    assert {
        name: stats[name] for name in ("started", "peak_open", "finished", "disconnected", "aborted", "events_sent")
    } == {
        "started": 5,
        "peak_open": 4,
        "finished": 1,
        "disconnected": 3,
        "aborted": 1,
        "events_sent": 3 + 7 + 2,
    }


# HTTP


def test_a_connection_serves_one_request_after_the_other(shared: Simulator) -> None:
    with shared.open_stream(f"sim:events=1,{FAST}") as connection:
        assert events_of(connection)[-1] == "[DONE]"
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: sim\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: sim\r\n\r\n")
        assert b"gpt-4o-mini" in read_to(connection, b"unknown_url")


def test_an_old_client_gets_the_body_until_the_end_of_the_connection(shared: Simulator) -> None:
    with shared.open_stream(f"sim:events=1,{FAST}", version="1.0") as connection:
        data = read_to(connection, b"[DONE]\n\n")
        assert connection.recv(1) == b""
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert len(EventDecoder().feed(body)) == 4


def test_the_trace_of_the_last_request_is_told(fresh: Simulator) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    fresh.request("GET", "/v1/models", Traceparent=traceparent)
    assert fresh.stats()["last_traceparent"] == traceparent


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/v1/nope", None, 404, "GET /v1/nope"),
        ("DELETE", "/v1/models", None, 405, "takes GET, not DELETE"),
        ("GET", "/v1/chat/completions", None, 405, "takes POST"),
        ("POST", "/v1/chat/completions", b"{", 400, "not JSON"),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400, "not JSON"),
        ("POST", "/v1/chat/completions", b"\xff", 400, "not JSON"),
        ("POST", "/v1/chat/completions", [], 400, "object, not list"),
        ("POST", "/v1/chat/completions", {"messages": []}, 400, "model is missing"),
        ("POST", "/v1/chat/completions", {"model": 1, "messages": []}, 400, "model is of type int"),
        ("POST", "/v1/chat/completions", {"model": "\ud800", "messages": []}, 400, "valid text"),
        ("POST", "/v1/chat/completions", {"model": "m"}, 400, "messages is missing"),
        ("POST", "/v1/chat/completions", {"model": "m", "messages": [], "stream": "yes"}, 400, "stream is of type str"),
        ("POST", "/v1/chat/completions", {"model": "sim:sise=1", "messages": []}, 400, "unknown key 'sise'"),
        ("POST", "/v1/chat/completions", {"model": "sim:events=inf", "messages": []}, 400, "needs stream: true"),
        ("POST", "/v1/chat/completions", b"x" * (4 * 1024 * 1024 + 1), 413, "more than 4194304 bytes"),
    ],
)
def test_wrong_requests_get_errors_in_the_known_shape(
    shared: Simulator, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answered, _, answer = shared.request(method, path, body)
    assert answered == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"431"),
        (b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b"400"),
    ],
    ids=["no HTTP", "long head", "upgrade"],
)
def test_what_cannot_be_read_is_refused_and_closed(shared: Simulator, raw: bytes, status: bytes) -> None:
    with socket.create_connection(shared.address, timeout=60) as connection:
        connection.sendall(raw)
        assert read_to(connection, b"}}").startswith(b"HTTP/1.1 " + status)
        assert connection.recv(1) == b""


def test_a_large_body_is_waited_for_when_the_client_asks_first(shared: Simulator) -> None:
    with socket.create_connection(shared.address, timeout=60) as connection:
        body = json.dumps({"model": f"sim:{FAST}", "messages": MESSAGES}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        assert read_to(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b"chat.completion" in read_to(connection, b"usage")


# the process


def test_a_port_in_use_is_said_with_a_remedy(shared: Simulator) -> None:
    port = str(shared.address[1])
    command = [sys.executable, "-m", "relay.simulator", "--port", port]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=250, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port 0" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_while_streams_are_open(number: signal.Signals) -> None:
    with simulator() as running, running.open_stream(f"sim:{FAST},fault=stall@1") as connection:
        read_to(connection, b"data: ")
        running.process.send_signal(number)
        assert running.process.wait(timeout=60) == 0


def test_it_ends_when_its_parent_has_gone() -> None:
    reading, writing = os.pipe()
    with (
        os.fdopen(reading) as stdin,
        os.fdopen(writing, "w") as parent,
        simulator("--until-stdin-closes", stdin=stdin) as running,
    ):
        assert running.stats()["open"] == 0
        parent.close()
        assert running.process.wait(timeout=60) == 0


def test_it_runs_without_uvloop() -> None:
    without = "import sys; sys.modules['uvloop'] = None; from relay.simulator import main; sys.exit(main())"
    with simulator(command=("-c", without)) as running:
        with running.open_stream(f"sim:events=1000,size=5000,{FAST}") as connection:
            assert len(events_of(connection)) == 1003
        with running.open_stream(f"sim:{FAST},fault=disconnect@3") as connection:
            assert len(read_to_end(connection)) > 0
        with running.open_stream(f"sim:events=inf,size=5000,{FAST}") as connection:
            read_to(connection, b"data: ")
        until(lambda: running.stats()["open"] == 0)


# the manual


@pytest.mark.needs("curl", "curl")
def test_the_examples_of_the_manual_work(shared: Simulator) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```sh\n(.*?)```", manual, re.DOTALL)
    examples = dict(re.findall(r"# (.*)\n(curl .*)\n", script))
    answers = {}
    for title, command in examples.items():
        arguments = shlex.split(command.replace("$BASE", shared.base_url))
        done = subprocess.run(arguments, capture_output=True, encoding="utf-8", timeout=250, check=False)
        answers[title] = (done.returncode, done.stdout)
    endings = {title: (code, output.rstrip()[-60:]) for title, (code, output) in answers.items()}
    assert {title: code for title, (code, _) in endings.items() if code} == {
        "closes the connection after four events: curl ends with code 18": 18
    }
    assert endings["as fast as curl takes it"][1].endswith("data: [DONE]")
    assert '"total_tokens":4}}' in answers["with usage at the end"][1]
    assert '"object":"chat.completion"' in answers["not streamed"][1]
    assert '"object":"text_completion"' in answers["a text completion"][1]
    assert "event: response.completed\n" in answers["a response"][1]
    assert answers["the first two requests are refused"][1].startswith("HTTP/1.1 429 Too Many Requests")
    assert "gpt-4o-mini" in answers["the models"][1]


def test_the_manual_names_every_key_fault_and_count(shared: Simulator) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    names = [*(field.name for field in fields(Script)), *(f"{kind}@N" for kind in STREAM_FAULTS), *shared.stats()]
    assert [name for name in names if f"`{name}`" not in manual] == []


# the grammar


@pytest.mark.parametrize(
    ("model", "script"),
    [
        ("gpt-4o-mini", Script()),
        ("sim:", Script()),
        ("sim:events=inf,size=2048,pace=0.5,first=2", Script(None, 2048, 0.5, 2.0)),
        ("sim:fault=stall@100,seed=7", Script(fault=Fault("stall", 100), seed=7)),
        ("sim:fault=429", Script(fault=Fault("429"))),
        ("sim:fault=500x2", Script(fault=Fault("500", times=2))),
    ],
)
def test_models_are_scripts(model: str, script: Script) -> None:
    assert parse(model) == script


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("sim:event=1", "unknown key 'event' in the model name, one of events, size"),
        ("sim:events", "'events' in the model name is not KEY=VALUE"),
        ("sim:events=1,", "'' in the model name is not KEY=VALUE"),
        ("sim:events=1,events=2", "'events' stands twice"),
        ("sim:events=-1", "events=-1 in the model name is not a whole number from 0"),
        ("sim:events=1e3", "events=1e3"),
        ("sim:size=0", "size=0"),
        ("sim:size=99999999999999999999", "size=9"),
        ("sim:pace=nan", "pace=nan"),
        ("sim:pace=inf", "pace=inf"),
        ("sim:first=-1", "first=-1"),
        ("sim:seed=x", "seed=x"),
        ("sim:fault=stall", "fault=stall in the model name is no fault, one of stall@N"),
        ("sim:fault=429@3", "fault=429@3"),
        ("sim:fault=404", "fault=404"),
    ],
)
def test_what_is_no_script_is_refused_with_its_part(model: str, words: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(words)):
        parse(model)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 24, 4097, 300_000])
def test_content_has_its_size_in_bytes(size: int) -> None:
    script = Script(events=3, size=size)
    events = ChatEvents("m", script, 1, 1, False)
    for position in (1, 2, 3):
        (event,) = EventDecoder().feed(events.take(position, position + 1))
        assert len(json.loads(event.data)["choices"][0]["delta"]["content"].encode()) == size


# the other endpoints


def test_the_official_client_reads_completions(shared: Simulator) -> None:
    model = f"sim:events=5,size=30,{FAST}"

    async def streamed(client: openai.AsyncOpenAI) -> list[Any]:
        options: Any = {"include_usage": True}
        return [
            chunk
            async for chunk in await client.completions.create(
                model=model, prompt="How high?", stream=True, stream_options=options
            )
        ]

    chunks = with_client(shared, streamed)
    assert [type(chunk).__name__ for chunk in chunks] == ["Completion"] * 7
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]).encode() == text_of(parse(model))
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 5)
    whole = with_client(shared, lambda client: client.completions.create(model=model, prompt=["How", "high?"]))
    assert whole.choices[0].text.encode() == text_of(parse(model))


@pytest.mark.parametrize("events", [0, 1, 65])
def test_the_official_client_reads_responses(shared: Simulator, events: int) -> None:
    model = f"sim:events={events},size=30,{FAST}"

    async def streamed(client: openai.AsyncOpenAI) -> tuple[list[Any], Any]:
        seen = [event async for event in await client.responses.create(model=model, input="How high?", stream=True)]
        async with client.responses.stream(model=model, input="How high?") as stream:
            return seen, await stream.get_final_response()

    seen, final = with_client(shared, streamed)
    assert [event.sequence_number for event in seen] == list(range(8 + events))
    # Strict: each event has all that its type has, and nothing of another type.
    assert all(event.model_dump_json(warnings="error") for event in seen)
    whole = with_client(shared, lambda client: client.responses.create(model=model, input="How high?"))
    assert whole.output_text == final.output_text == text_of(parse(model)).decode()
    assert (whole.status, whole.usage.input_tokens, whole.usage.output_tokens) == ("completed", 3, events)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses"])
def test_faults_are_the_same_on_every_endpoint(shared: Simulator, path: str) -> None:
    for stream in (True, False):
        status, _, answer = shared.request("POST", path, {"model": "sim:fault=500", "stream": stream})
        assert (status, answer["error"]["type"]) == (500, "server_error")
    status, _, answer = shared.request("POST", path, {"model": "m", "prompt": 1, "input": 1})
    assert (status, "must be of type str or list" in answer["error"]["message"]) == (400, True)
