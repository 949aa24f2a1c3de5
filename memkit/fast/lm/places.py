"""Where in a causal language model fast weights go, and which model it is.

Nothing here knows a family of models by name: a decoder is the longest list of alike layers, and the last linear map of
a layer's MLP, which writes into the residual stream, goes by one of a few names.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memkit_storage.errors import InvalidInput

OUTWARD = ("down_proj", "dense_4h_to_h", "fc_out", "c_proj", "fc2", "wo", "w2")  # names of that map
SAMPLES = 4096  # elements of each parameter that identify it


class Place(NamedTuple):
    """One map that gets fast weights.

    Attributes:
        module: it. keys: how many dims it reads. values: how many it writes.
        scale: root mean square of the singular values of its own weight: the length that steps are measured in.
    """

    module: nn.Module
    keys: int
    values: int
    scale: float


def places(model: nn.Module) -> list[Place]:
    """The MLPs' outward maps in the upper half of the layers, lowest first.

    Raises:
        InvalidInput: no decoder layers, or MLPs of a form that is not known (mixtures of experts among them).
    """
    layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, default=nn.ModuleList())
    found = [_outward(layer) for layer in list(layers)[len(layers) // 2 :]]
    known = [place for place in found if place is not None]
    if not known or len(known) < len(found) or len({place.values for place in known}) > 1:
        raise InvalidInput(
            f"{type(model).__name__}: {len(known)} of {len(found)} upper layers have an MLP that ends in one of "
            f"{', '.join(OUTWARD)}; attach a dense decoder such as Llama, Qwen, Gemma, Mistral, Phi or GPT-2"
        )
    return known


def _outward(layer: nn.Module) -> Place | None:
    """The last map of a layer's MLP; attention may use the same names for its own."""
    for name, module in layer.named_modules():
        if name.rpartition(".")[2] in OUTWARD and "attn" not in name and "attention" not in name:
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.ndim == 2:
                return _place(module, weight)
    return None


def _place(module: nn.Module, weight: Tensor) -> Place:
    rows, columns = weight.shape
    values, keys = (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)  # GPT-2 stores it transposed
    scale = float(weight.detach().float().norm()) / min(rows, columns) ** 0.5
    return Place(module, keys, values, scale)


def head(model: Any) -> nn.Module:
    """The map from the last hidden state to the vocabulary.

    Raises:
        InvalidInput: there is none: the model is no causal language model.
    """
    found = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(found, nn.Module):
        raise InvalidInput(f"{type(model).__name__} has no output embeddings; load it with AutoModelForCausalLM")
    return found


def identity(model: nn.Module) -> str:
    """What a model is: its class and a hash over a sample of every parameter, rounded to bfloat16.

    A copy in another precision is the same model; fine-tuning, of even one matrix, makes another.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLES)].to(torch.bfloat16).cpu().view(torch.int16).numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(sample.tobytes())
    return f"{type(model).__name__}:{digest.hexdigest()[:32]}"
