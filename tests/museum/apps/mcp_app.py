"""An MCP server without sessions: a task for each request, in a group that lives as long as the server."""

import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from starlette.routing import Mount

server = FastMCP("museum", stateless_http=True, json_response=True, log_level="ERROR")


@server.tool()
def add(left: int, right: int) -> int:
    return left + right


inner = server.streamable_http_app()
# Older releases mount it and redirect what has no slash at its end, newer ones the other way round.
path = "/mcp/" if any(isinstance(route, Mount) for route in inner.routes) else "/mcp"


async def app(scope, receive, send):
    await inner({**scope, "path": path, "raw_path": path.encode()} if scope["type"] == "http" else scope, receive, send)


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
