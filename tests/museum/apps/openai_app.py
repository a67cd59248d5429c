"""An answer that is parsed into a model, in a thread of its own for each request as a threaded server does. Each thread makes
the generic types anew, and a cache without a bound keeps an adapter for each."""

import asyncio
import threading

from asgi import service
from openai import omit
from openai.lib._parsing._responses import parse_response
from openai.types.responses import Response
from pydantic import BaseModel


class Fact(BaseModel):
    fact: str


text = {"type": "output_text", "text": '{"fact": "rain is wet"}', "annotations": []}
message = {"type": "message", "id": "1", "role": "assistant", "status": "completed", "content": [text]}
answer = Response.model_validate(
    {
        "id": "1", "created_at": 0, "model": "any", "object": "response", "output": [message], "parallel_tool_calls": False,
        "tool_choice": "auto", "tools": [],
    }
)  # fmt: skip


def parse(done, loop):
    parse_response(text_format=Fact, input_tools=omit, response=answer)
    loop.call_soon_threadsafe(done.set)


async def work():
    done = asyncio.Event()
    threading.Thread(target=parse, args=(done, asyncio.get_running_loop())).start()
    await done.wait()


app = service(work)
