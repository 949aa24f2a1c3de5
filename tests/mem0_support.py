"""The real mem0ai, offline: its Qdrant store in a directory, with an embedder and a language model of these tests."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

os.environ["MEM0_TELEMETRY"] = "False"  # read when mem0 is imported
os.environ.setdefault("MEM0_DIR", tempfile.mkdtemp(prefix="mem0-"))

from mem0 import Memory
from mem0.configs.llms.base import BaseLlmConfig
from mem0.utils.factory import EmbedderFactory, LlmFactory
from support import DIM, embed

HERE = __name__


class Embedder:
    """Words hashed to vectors."""

    def __init__(self, config=None):
        self.config = config

    def embed(self, text, memory_action=None):
        return embed([text])[0].tolist()

    def embed_batch(self, texts, memory_action=None):
        return [self.embed(text) for text in texts]


class Model:
    """Finds one fact in whatever it reads."""

    def __init__(self, config=None):
        self.config = config

    def generate_response(self, messages, **more):
        return json.dumps({"memory": [{"text": "Ana drinks green tea", "attributed_to": "user"}]})


def real_memory(directory: Path) -> Memory:
    """Mem0's own Memory in a directory; close its client with `.vector_store.client.close()`."""
    EmbedderFactory.provider_to_class["openai"] = f"{HERE}.Embedder"
    LlmFactory.provider_to_class["openai"] = (f"{HERE}.Model", BaseLlmConfig)
    return Memory.from_config(
        {
            "vector_store": {
                "provider": "qdrant",
                "config": {"path": str(directory / "qdrant"), "embedding_model_dims": DIM, "on_disk": True},
            },
            "history_db_path": str(directory / "history.db"),
        }
    )
