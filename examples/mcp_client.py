"""A client of memkit's MCP server. Run it twice: the second server finds what the first one was told.

pip install "memkit-ai[mcp]"
python examples/mcp_client.py
"""

import asyncio
import os
import sys

from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-c", "from memkit.cli import main; main()", "mcp", "mcp.mem", "--user", "ana"],
    env=dict(os.environ),
)


async def main() -> None:
    """Search, then remember."""
    async with Client(stdio_client(SERVER)) as client:
        found = await client.call_tool("search_memories", {"query": "which food must I avoid?"})
        print("found:", [hit["text"] for hit in (found.structured_content or {})["result"]])
        await client.call_tool("add_memory", {"text": "Ana is allergic to peanuts."})


asyncio.run(main())
