"""langmem's tools on a .mem file. Run it twice: the second process finds what the first one kept.

pip install "memkit-ai[langgraph]" langmem
python examples/langmem_tools.py
"""

from langmem import create_manage_memory_tool, create_search_memory_tool

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore

with Memory("langmem.mem") as memory:
    store = MemkitStore(memory)
    namespace = ("memories", "ana")
    search = create_search_memory_tool(namespace, store=store)
    manage = create_manage_memory_tool(namespace, store=store)
    found = search.invoke({"query": "which food must she avoid?"})
    print("known:", found if "peanuts" in str(found) else "nothing yet")
    manage.invoke({"content": "Ana is allergic to peanuts.", "action": "create"})
