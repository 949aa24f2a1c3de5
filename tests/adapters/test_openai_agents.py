"""The OpenAI Agents SDK on a .mem file: sessions, tools and instructions that recall."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("agents")

from agents import Agent, RunConfig, RunContextWrapper, Runner, Session, SessionSettings
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call

from memkit.errors import InvalidInput
from memkit.journal import Journal
from memkit_adapters.openai_agents import MemkitSession, memory_tools, recall_instructions

QUIET = RunConfig(tracing_disabled=True)
IDS = ["a.b", "a/b", "../x", "ana@example.org", "日本語 😀", "'; DROP TABLE x", "$where", "x" * 1000, '["a"]', " "]


def said(text, role="user"):
    return {"role": role, "content": text}


def agent(*answers, **more):
    model = ScriptedModel(
        [answer if isinstance(answer, (ModelStep, list)) else [assistant_message(answer)] for answer in answers]
    )
    return Agent(name="test", model=model, **more)


async def run(who, text, session):
    return await Runner.run(who, text, session=session, run_config=QUIET)


async def test_a_run_sees_what_was_said_in_an_earlier_process(open_memory):
    await run(agent("Noted."), "I live in Lisbon.", MemkitSession("chat", open_memory()))
    who = agent("In Lisbon.")
    await run(who, "Where do I live?", MemkitSession("chat", open_memory()))
    words = [
        item["content"] if item["role"] == "user" else item["content"][0]["text"] for item in who.model.last_call.input
    ]
    assert words == ["I live in Lisbon.", "Noted.", "Where do I live?"]


def test_it_is_a_session(memory):
    session = MemkitSession("chat", memory)
    assert isinstance(session, Session)
    assert (session.session_id, session.session_settings) == ("chat", SessionSettings())
    assert MemkitSession("chat", memory, session_settings={"limit": 3}).session_settings == SessionSettings(limit=3)
    assert MemkitSession("chat", memory, session_settings=SessionSettings(limit=2)).session_settings.limit == 2


async def test_items_of_every_kind_come_back_as_they_were(memory):
    session = MemkitSession("chat", memory)
    items = [
        said("\ud83d half, ünïcödé, \0"),
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1", "status": None},
        {
            "type": "function_call_output",
            "call_id": "1",
            "output": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
        },
        {"type": "reasoning", "summary": [], "n": 2**80, "x": 1.0, "": {"": [None, True]}},
    ]
    await session.add_items(items)
    assert json.dumps(await session.get_items()) == json.dumps(items)
    await session.add_items([])
    assert len(await session.get_items()) == 4


async def test_the_latest_items_are_what_a_limit_or_the_settings_say(memory):
    session = MemkitSession("chat", memory, session_settings={"limit": 2})
    await session.add_items([said(str(n)) for n in range(5)])
    contents = [[item["content"] for item in await session.get_items(limit)] for limit in (None, 0, 1, 9, -1)]
    assert contents == [["3", "4"], [], ["4"], list("01234"), list("01234")]


@pytest.mark.parametrize("name", IDS, ids=ascii)
async def test_an_id_of_any_characters_is_a_session_of_its_own(open_memory, name):
    for other in IDS:
        await MemkitSession(other, open_memory()).add_items([said(f"of {other}")])
    session = MemkitSession(name, open_memory())
    assert await session.get_items() == [said(f"of {name}")]
    await session.clear_session()
    assert await session.pop_item() is None
    left = [await MemkitSession(other, open_memory()).get_items() for other in IDS if other != name]
    assert all(len(items) == 1 for items in left)


async def test_two_users_share_nothing_under_the_same_session_id(memory):
    ana, ben = (MemkitSession("chat", memory.scope(user_id=user)) for user in ("ana", "ben"))
    await run(agent("Hello Ana."), "I am Ana.", ana)
    who = agent("Hello Ben.")
    await run(who, "I am Ben.", ben)
    assert [item["content"] for item in who.model.last_call.input] == ["I am Ben."]
    await ana.clear_session()
    assert len(await ben.get_items()) == 2


def test_a_session_must_fit_the_run_of_its_view(memory):
    with pytest.raises(InvalidInput, match="bound to run_id='other'"):
        MemkitSession("chat", memory.scope(run_id="other"))
    with pytest.raises(InvalidInput):
        MemkitSession("", memory)


async def test_threads_and_a_loop_at_once_lose_nothing_and_pop_nothing_twice(open_memory):
    handles = [open_memory(), open_memory()]

    def work(n):
        asyncio.run(MemkitSession("busy", handles[n % 2]).add_items([said(f"t{n}a"), said(f"t{n}b")]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    session = MemkitSession("busy", handles[0])
    await asyncio.gather(*(session.add_items([said(f"l{n}")]) for n in range(16)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    wanted = sorted([f"l{n}" for n in range(16)] + [f"t{n}{part}" for n in range(8) for part in "ab"])
    assert sorted(item["content"] for item in await session.get_items()) == wanted
    popped = await asyncio.gather(*(MemkitSession("busy", handles[n % 2]).pop_item() for n in range(len(wanted))))
    assert sorted(item["content"] for item in popped) == wanted
    assert await session.pop_item() is None


async def test_an_exception_in_the_model_leaves_the_file_consistent(open_memory):
    memory = open_memory()
    with pytest.raises(ConnectionError):
        await run(agent(ModelStep.raise_error(ConnectionError("gone"))), "Hello?", MemkitSession("chat", memory))
    assert memory.verify().ok
    session = MemkitSession("chat", open_memory())
    assert [item["content"] for item in await session.get_items()] == ["Hello?"]
    await run(agent("Hello."), "Again.", session)
    assert len(await session.get_items()) == 3


async def test_an_exception_in_a_tool_leaves_the_file_consistent(open_memory):
    from agents import function_tool

    @function_tool(failure_error_function=None)
    def fail() -> str:
        """Fail."""
        raise ZeroDivisionError

    memory = open_memory()
    who = agent([function_call("fail", {}, call_id="1")], tools=[fail])
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever class the SDK wraps it into
        await run(who, "Try.", MemkitSession("chat", memory))
    assert memory.verify().ok
    assert (await MemkitSession("chat", open_memory()).get_items())[0]["content"] == "Try."


async def test_half_a_character_in_what_was_asked_stops_no_run(memory):
    memory.add("green tea")
    instructions = recall_instructions(memory, "Be brief.")
    context = SimpleNamespace(turn_input=[{"role": "user", "content": "green tea \ud83d"}])
    assert "green tea" in await instructions(context, None)


async def test_an_item_that_is_not_json_is_refused_with_its_whole_batch(memory):
    session = MemkitSession("chat", memory)
    with pytest.raises(InvalidInput, match="JSON"):
        await session.add_items([said("fine"), {"role": "user", "content": object()}])
    assert await session.get_items() == []


@pytest.mark.parametrize("operation", ["add", "pop", "clear"])
async def test_a_cancelled_change_is_passed_on_once_it_has_happened(memory, monkeypatch, operation):
    session, begun, go_on = MemkitSession("chat", memory), threading.Event(), threading.Event()
    await session.add_items([said("one")])
    name = {"add": "append", "pop": "pop", "clear": "clear"}[operation]
    change = getattr(Journal, name)

    def slowly(self, *args):
        begun.set()
        go_on.wait(10)
        return change(self, *args)

    monkeypatch.setattr(Journal, name, slowly)
    work = {"add": lambda: session.add_items([said("two")]), "pop": session.pop_item, "clear": session.clear_session}
    task = asyncio.create_task(work[operation]())
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await session.get_items()) == (2 if operation == "add" else 0)


async def test_the_tools_act_on_one_users_memory(memory):
    memory.add("Ben eats peanuts.", user_id="ben")
    tools = memory_tools(memory.scope(user_id="ana"))
    who = agent(
        [function_call("remember", {"text": "Ana is allergic to peanuts."}, call_id="1")],
        [function_call("search_memory", {"query": "peanuts", "limit": 5}, call_id="2")],
        "No peanuts.",
        tools=tools,
    )
    result = await run(who, "What must I avoid?", None)
    outputs = [item.output for item in result.new_items if item.type == "tool_call_output_item"]
    assert [hit["text"] for hit in outputs[1]] == ["Ana is allergic to peanuts."]
    assert [tool.name for tool in tools] == ["search_memory", "remember", "forget"]
    assert [tool.name for tool in memory_tools(memory, read_only=True)] == ["search_memory"]


async def test_instructions_recall_what_bears_on_the_last_thing_a_user_said(memory):
    ana = memory.scope(user_id="ana")
    ana.add("Ana is allergic to peanuts.")
    memory.add("Ben eats peanuts.", user_id="ben")
    who = agent("None.", "Hello.", instructions=recall_instructions(ana, "Be brief."))
    await run(who, "Which peanuts is Ana allergic to?", MemkitSession("chat", ana))
    told = who.model.last_call.system_instructions
    assert told.startswith("Be brief.\n\n")
    assert "allergic to peanuts" in told
    assert "Ben" not in told


async def test_instructions_leave_out_what_the_session_itself_shows(memory):
    memory.add("The spare key hangs in the hall.")
    monday, today = MemkitSession("monday", memory), MemkitSession("today", memory)
    await monday.add_items([said("The spare key moved to the kitchen.")])
    who = agent("In the kitchen.", instructions=recall_instructions(memory, "Be brief.", session=today))
    await run(who, "Where is the spare key?", today)
    told = who.model.last_call.system_instructions
    assert "in the hall" in told
    assert "to the kitchen" in told
    assert "Where is" not in told


async def test_instructions_without_evidence_or_words_are_the_base(memory):
    instructions = recall_instructions(memory, "Be brief.")
    who = agent("Hello.", instructions=instructions)
    await run(who, "Hello!", None)
    assert who.model.last_call.system_instructions == "Be brief."

    for content in ("", None, [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]):
        context = RunContextWrapper(None, turn_input=[said(content)])
        assert await instructions(context, who) == "Be brief."
    assert await instructions(RunContextWrapper(None), who) == "Be brief."


async def test_what_was_said_in_a_session_is_found_by_search(memory):
    await MemkitSession("monday", memory).add_items([said("The spare key hangs behind the kitchen door.")])
    hit = memory.search("where is the spare key", limit=1)[0]
    assert (hit.run_id, hit.metadata["role"]) == ("monday", "user")
