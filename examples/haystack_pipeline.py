"""A Haystack pipeline over one .mem file. Run it twice: the second process finds what the first one wrote.

pip install "memkit-ai[haystack]"
python examples/haystack_pipeline.py
"""

from haystack import Document, Pipeline
from haystack.components.builders import PromptBuilder
from haystack.document_stores.types import DuplicatePolicy

from memkit_adapters.haystack import MemkitDocumentStore, MemkitRetriever

TEMPLATE = """Answer from the notes.
{% for note in notes %}- {{ note.content }}
{% endfor %}Question: {{ question }}"""

store = MemkitDocumentStore("haystack.mem", user_id="ana")
earlier = store.count_documents()
notes = [
    Document(content="The boiler was serviced in March.", meta={"room": "cellar"}),
    Document(content="The spare key hangs behind the kitchen door.", meta={"room": "kitchen"}),
]
written = store.write_documents(notes, policy=DuplicatePolicy.SKIP)
print(f"{earlier} notes from earlier processes, {written} new")

pipeline = Pipeline()
pipeline.add_component("memory", MemkitRetriever(store, top_k=1))
pipeline.add_component("prompt", PromptBuilder(TEMPLATE, required_variables=["notes", "question"]))
pipeline.connect("memory.documents", "prompt.notes")  # from here to a generator of your choice

question = "where is the spare key?"
kitchen = {"field": "meta.room", "operator": "==", "value": "kitchen"}
result = pipeline.run({"memory": {"query": question, "filters": kitchen}, "prompt": {"question": question}})
print(result["prompt"]["prompt"])
store.close()
