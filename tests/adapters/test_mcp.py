"""The MCP server: what it offers, what it refuses, and that it speaks over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
from mcp import MCPError, StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp.types import INVALID_PARAMS

from memkit.errors import InvalidInput
from memkit_adapters.mcp_server import memory_server, serve

CLI = [sys.executable, "-c", "from memkit.cli import main; main()"]


def environment(folder):
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(folder / "cache")}


async def call(client, name, **arguments):
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result
    content = result.structured_content
    return content["result"] if content is not None and set(content) == {"result"} else content


async def test_every_verb_works(memory):
    async with Client(memory_server(memory)) as client:
        added = await call(client, "add_memory", text="the kettle is blue", metadata={"room": "kitchen"})
        assert (await call(client, "search_memories", query="kettle"))[0]["id"] == added["id"]
        assert "kettle" in await call(client, "recall_memories", query="what about the kettle?")
        assert (await call(client, "get_memory", id=added["id"]))["metadata"] == {"room": "kitchen"}
        await call(client, "update_memory", id=added["id"], text="the kettle is red")
        assert (await call(client, "list_memories"))["memories"][0]["text"] == "the kettle is red"
        assert await call(client, "feedback", query="kettle", used=[added["id"]])
        assert await call(client, "delete_memory", id=added["id"])
        history = await call(client, "memory_history", id=added["id"])
        assert [change["kind"] for change in history] == ["added", "updated", "deleted"]


async def test_resources_and_the_prompt(memory):
    (item,) = memory.add("the kettle is blue", id="k1")
    async with Client(memory_server(memory)) as client:
        found = await client.read_resource("memkit://items/k1")
        assert json.loads(found.contents[0].text)["text"] == item.text
        assert json.loads((await client.read_resource("memkit://stats")).contents[0].text)["items"] == 1
        prompt = await client.get_prompt("recall", {"question": "what about the kettle?"})
        assert "kettle is blue" in prompt.messages[0].content.text


async def test_an_error_names_the_value_and_the_next_step(memory):
    async with Client(memory_server(memory)) as client:
        missing = await client.call_tool("get_memory", {"id": "nothing"})
        assert missing.is_error
        assert "search_memories" in missing.content[0].text
        empty = await client.call_tool("add_memory", {"text": " "})
        assert empty.is_error
        assert "empty" in empty.content[0].text


async def test_a_resource_or_a_prompt_that_cannot_be_had_says_why(memory):
    async with Client(memory_server(memory)) as client:
        with pytest.raises(MCPError, match="no memory 'nothing' here; search_memories") as missing:
            await client.read_resource("memkit://items/nothing")
        with pytest.raises(MCPError, match="ask with some words") as blank:
            await client.get_prompt("recall", {"question": " "})
    assert {missing.value.code, blank.value.code} == {INVALID_PARAMS}


async def test_read_only_offers_nothing_that_writes(memory):
    async with Client(memory_server(memory, read_only=True)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"search_memories", "recall_memories", "get_memory", "list_memories", "memory_history"}
        refused = None
        try:
            refused = (await client.call_tool("add_memory", {"text": "x"})).is_error
        except Exception:  # noqa: BLE001 - the protocol may also answer with an error of its own
            refused = True
        assert refused
    assert memory.stats().items == 0


async def test_no_argument_leads_out_of_the_scope(memory):
    memory.add("bo's secret is 4711", user_id="bo", id="secret")
    async with Client(memory_server(memory.scope(user_id="ana"))) as client:
        for tool in (await client.list_tools()).tools:
            assert not {"user_id", "agent_id", "run_id", "where"} & set(tool.input_schema.get("properties", {}))
        assert await call(client, "search_memories", query="secret", limit=10) == []
        assert (await client.call_tool("get_memory", {"id": "secret", "user_id": "bo"})).is_error
        assert await call(client, "delete_memory", id="secret") is False
        await call(client, "add_memory", text="mine", metadata={"user_id": "bo"})
    assert memory.stats().users == {"bo": 1, "ana": 1}


async def test_odd_ids_and_metadata_come_back(memory):
    async with Client(memory_server(memory)) as client:
        for id_ in ["a.b/c", "ana@example.org", "Ünïcødé ☕", "k" * 1000]:
            memory.add(f"text of {id_[:9]}", id=id_, metadata={id_: 1})
            assert (await call(client, "get_memory", id=id_))["metadata"] == {id_: 1}


async def test_over_stdio_a_later_server_knows_what_an_earlier_one_was_told(tmp_path):
    server = StdioServerParameters(
        command=CLI[0], args=[*CLI[1:], "mcp", str(tmp_path / "a.mem"), "--user", "ana"], env=environment(tmp_path)
    )
    async with Client(stdio_client(server)) as client:
        await call(client, "add_memory", text="allergic to peanuts")
    async with Client(stdio_client(server)) as client:
        assert (await call(client, "search_memories", query="peanuts"))[0]["text"] == "allergic to peanuts"


def test_over_http_on_this_machine_alone(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*CLI, "mcp", str(tmp_path / "a.mem"), "--http", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/mcp"
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.DEVNULL) as server:
        try:
            asyncio.run(_over_http(url))
            assert _status(url, host="evil.example") in (403, 421)
        finally:
            server.terminate()
    with pytest.raises(InvalidInput, match="this machine alone"):
        serve(str(tmp_path / "a.mem"), http=True, host="0.0.0.0")


async def _over_http(url):
    for _ in range(300):
        if _listens(url):
            break
        await asyncio.sleep(0.1)
    async with Client(url) as client:
        await call(client, "add_memory", text="allergic to peanuts")
        assert (await call(client, "search_memories", query="peanuts"))[0]["text"] == "allergic to peanuts"


def _listens(url):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) == 0


def _status(url, host):
    from urllib.error import HTTPError

    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    headers = {"Host": host, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    try:
        with urlopen(Request(url, body, headers), timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


def test_without_the_framework_the_command_names_the_extra(tmp_path):
    code = "import sys; sys.modules['mcp'] = None; from memkit.cli import main; main()"
    command = [sys.executable, "-c", code, "mcp", str(tmp_path / "a.mem")]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert (done.returncode, "memkit-ai[mcp]" in done.stderr) == (2, True)
