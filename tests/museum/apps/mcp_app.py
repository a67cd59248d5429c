"""An MCP server without sessions: a task for each request, in a group that lives as long as the server."""

import sys

import uvicorn
from mcp.server.fastmcp import FastMCP

server = FastMCP(
    "museum", stateless_http=True, json_response=True, host="127.0.0.1", port=int(sys.argv[1]), log_level="ERROR"
)


@server.tool()
def add(left: int, right: int) -> int:
    return left + right


uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
