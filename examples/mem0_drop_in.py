"""Code written for Mem0, on one .mem file. Run it twice: the second process finds what the first one added.

pip install memkit-ai
python examples/mem0_drop_in.py
"""

from memkit_adapters.mem0 import Memory  # was: from mem0 import Memory

with Memory("mem0.mem") as memory:
    earlier = memory.get_all(filters={"user_id": "ana"})["results"]
    print(f"{len(earlier)} memories from earlier processes")
    if not earlier:
        messages = [
            {"role": "user", "content": "I moved to Lisbon in May, and I am allergic to peanuts."},
            {"role": "assistant", "content": "Noted. How do you like it there?"},
        ]
        memory.add(messages, user_id="ana", metadata={"topic": "home"})

    found = memory.search("what must she not eat?", filters={"user_id": "ana", "topic": {"icontains": "HOME"}}, top_k=1)
    print(found["results"][0]["memory"])
    print(len(memory.search("peanuts", user_id="bo", limit=5)["results"]), "of them are shown to bo")  # as in Mem0 1.x
