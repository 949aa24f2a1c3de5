"""A tour of the API in a temporary directory: offline, in seconds. `python examples/quickstart.py`."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from memkit import Memory


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tour(Path(folder))


def tour(folder: Path) -> None:
    memory = Memory(folder / "assistant.mem", cache_dir=folder / "cache")  # a path is the whole configuration

    # a text, or messages as a chat has them, with their own times
    memory.add("I moved to Lisbon in May.", user_id="ana", metadata={"source": "profile"})
    memory.add(
        [
            {"role": "user", "content": "I am allergic to peanuts.", "timestamp": "2026-05-03T18:20:00+01:00"},
            {"role": "assistant", "content": "Noted: no peanuts.", "timestamp": "2026-05-03T18:20:05+01:00"},
        ],
        user_id="ana",
    )
    memory.add("I live in Bergen and I love peanut butter.", user_id="bo")

    # a scope is the same memory, bound: bo does not exist in it
    ana = memory.scope(user_id="ana")
    for hit in ana.search("where does she live?", limit=2):
        print(f"{hit.score:.2f}  {hit.text}  (meaning {hit.signals['meaning']:.1f}, words {hit.signals['words']:.1f})")

    # context for a prompt, with citations, within a budget
    recall = ana.recall("plan a dinner", max_tokens=200)
    print(recall.text)
    print("cited:", recall.citations)

    # what helped teaches the next searches of this user; an answer teaches by itself, where it is clear what it used
    (allergy,) = ana.search("allergic", limit=1)
    ana.feedback("anything to avoid at dinner?", used=[allergy.id])
    print(ana.search("anything to avoid at dinner?", limit=1)[0].text)
    print("the answer used:", recall.observe("She is allergic to peanuts."))

    # one filter language everywhere
    page = memory.list({"OR": [{"source": "profile"}, {"user_id": "bo"}]})
    print([item.text for item in page.items])

    # an update is a new version; the former one stays, and so does the way back to it
    (home,) = ana.search("Lisbon", limit=1)
    before = datetime.now(UTC)
    ana.update(home.id, "I moved from Lisbon to Porto.")
    print([change.kind for change in ana.history(home.id)])
    print("then:", [item.text for item in memory.at(before).list().items])
    print("now: ", [item.text for item in ana.list().items])

    # one user's part moves as one file
    print(ana.export(folder / "ana.mem"), "items exported")
    with Memory(folder / "other.mem", cache_dir=folder / "cache") as other:
        print(other.merge(folder / "ana.mem"))

    # what must go goes for good, with a receipt; what stays can be proven
    receipt = memory.erase(where={"user_id": "bo"}, reason="asked to be forgotten")
    print(receipt.items, "erased, checked:", receipt.checked)
    print("whole:", memory.verify().ok)
    memory.close()


if __name__ == "__main__":
    main()
