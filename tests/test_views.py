"""Names that callers give are ids of their own in every scope."""

from __future__ import annotations

import pytest

from memkit.views import name_of, named


def test_a_name_is_the_id_without_a_scope_and_stands_behind_the_scope_in_a_view(memory):
    view = memory.scope(agent_id="é").scope(user_id="ana@example.org")
    assert named(memory, "a.b/c") == "a.b/c"
    assert named(view, "a.b/c") == '{"user_id": "ana@example.org", "agent_id": "é"} a.b/c'
    for here in (memory, view):
        assert name_of(here, named(here, "a.b/c")) == "a.b/c"


def test_what_a_view_holds_under_the_bare_name_keeps_it(memory):
    ana, bo = memory.scope(user_id="ana"), memory.scope(user_id="bo")
    ana.add("imported", id="x")
    assert (named(ana, "x"), named(bo, "x")) == ("x", '{"user_id": "bo"} x')
    ana.delete("x")
    assert named(ana, "x") == '{"user_id": "ana"} x'


@pytest.mark.parametrize("name", ["", "x" * 9000])
def test_what_cannot_be_an_id_names_nothing(memory, name):
    assert named(memory.scope(user_id="ana"), name) == f'{{"user_id": "ana"}} {name}'
