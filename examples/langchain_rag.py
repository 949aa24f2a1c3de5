"""A LangChain vector store and retriever in a .mem file. Run it twice: the second process adds nothing, and finds all.

pip install "memkit-ai[langchain]"
python examples/langchain_rag.py
"""

from langchain_core.documents import Document

from memkit import Memory
from memkit_adapters.langchain import MemkitRetriever, MemkitVectorStore

with Memory("rag.mem") as memory:
    store = MemkitVectorStore(memory)
    known = len(store.get_by_ids(["boiler", "key"]))
    print(f"{known} notes from earlier processes")
    store.add_documents(
        [
            Document(page_content="The boiler was serviced in March.", id="boiler", metadata={"room": "cellar"}),
            Document(
                page_content="The spare key hangs behind the kitchen door.", id="key", metadata={"room": "kitchen"}
            ),
        ]
    )
    print(store.similarity_search("heating", k=1, filter={"room": "cellar"})[0].page_content)
    print(MemkitRetriever(memory=memory, k=1).invoke("where is the spare key?")[0].page_content)
