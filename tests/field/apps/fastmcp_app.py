"""A FastMCP server with one tool that tells its progress while it works."""

import asyncio

from fastmcp import Context, FastMCP

mcp = FastMCP("field")


@mcp.tool
async def count(to: int, context: Context) -> int:
    for number in range(to):
        await context.report_progress(number, to)
        await asyncio.sleep(0.05)
    return to
