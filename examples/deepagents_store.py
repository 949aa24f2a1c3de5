"""Files of a deep agent in a .mem file. Run it twice: the second process reads what the first one wrote.

pip install "memkit-ai[langgraph]" deepagents
python examples/deepagents_store.py
"""

from deepagents.backends import StoreBackend

from memkit import Memory
from memkit_adapters.langgraph import MemkitStore

with Memory("deepagents.mem") as memory:
    files = StoreBackend(store=MemkitStore(memory), namespace=lambda runtime: ("files", "ana"))
    read = files.read("/memories/food.md")
    print("earlier:", "nothing yet" if read.error else read.file_data)
    files.write("/memories/food.md", "Ana is allergic to peanuts.")
