"""A shop on the protocol's own library, over streamable HTTP on a port that is free."""

import asyncio
import os
import sys

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer

ttl = int(sys.argv[1])
server = MCPServer("shop", cache_hints={"tools/list": CacheHint(ttl_ms=ttl, scope="private")})


@server.tool()
def find(order: str) -> dict[str, str]:
    """Finds an order."""
    return {"order": order, "state": "shipped"}


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool()
async def close(ctx: Context) -> str:
    """Takes the other tools away."""
    server.remove_tool("add")
    await ctx.notify_tools_changed()
    return "closed"


@server.tool()
async def slowly(ctx: Context) -> str:
    """Takes its time, and says so."""
    for step in range(10_000):
        await ctx.report_progress(step, 10_000)
        await asyncio.sleep(0.02)
    return "done"


@server.tool()
def key(ctx: Context) -> str:
    """The key of this call."""
    return str(ctx.request_context.meta)


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("there is no such order")


server.run("streamable-http", host="127.0.0.1", port=int(os.environ.get("PORT", "0")))
