"""Tiny causal language models with random weights, and a tokenizer of bytes: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch

KINDS = ("llama", "qwen", "gemma", "gpt2")
VOCABULARY = 260


class Bytes:
    """A token is a byte; 256 opens a stream."""

    bos_token_id, eos_token_id = 256, 257

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


def tiny(
    kind: str = "llama",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    positions: int = 1024,
    layers: int = 4,
) -> Any:
    """A model of a few layers and 32 dims."""
    import transformers as t

    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "initializer_range": 0.2,
    }
    models = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape)),
        "qwen": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**shape)),
        "gemma": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**shape, head_dim=8, sliding_window=512)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=VOCABULARY, n_embd=32, n_layer=layers, n_head=4, n_positions=positions, initializer_range=0.2
            )
        ),
    }
    return models[kind]().to(dtype).eval()
