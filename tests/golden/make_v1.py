"""Made v1.mem and v1.json once, with memkit 0.1.0. Never run again: every later version must read the file as it is.

The file has a frame of every type of format 1: single rows, a batch, deletions, settings, two checkpoints, vectors of a
second embedder, a note of a repair and one of an erasure.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import embed

from memkit import Memory
from memkit_storage import store

HERE = Path(__file__).parent
PATH = HERE / "v1.mem"


def first_embedder(texts: list[str]) -> np.ndarray:
    """Of another dimension than the one that is in force in the end."""
    return embed(texts)[:, :16]


def fill(path: Path, cache: Path) -> None:
    with Memory(path, embedder=first_embedder, cache_dir=cache) as memory:
        memory.add("I live in Porto.", id="home", user_id="ana", occurred_at="2026-01-05T10:00:00+00:00")
        memory.add(
            "日本語 café 😀 'quoted' \\ \n lines",
            id="odd/ id.é@x",
            metadata={"a.b": 1, "n": {"x": [1, "z", None, True, 2.5]}},
        )
        memory.add(
            [
                {"role": "user", "name": "Bo", "content": f"note {i}", "id": f"n{i}", "timestamp": 1_700_000_000 + i}
                for i in range(20)
            ],
            user_id="bob",
            run_id="r1",
        )
        memory.update("home", "I live in Lisbon.", occurred_at="2026-05-05T10:00:00+00:00")
        memory.delete(["n3", "n4"])
        memory.add("secret to erase", id="gone", user_id="eve")
        memory.erase(user_id="eve", reason="asked")


def merge_and_damage(path: Path, cache: Path) -> None:
    with Memory(cache / "other.mem", embedder=first_embedder, cache_dir=cache) as other:
        other.add("I was merged.", id="merged", agent_id="helper", occurred_at="1969-07-20T20:17:40+00:00")
        other.update("merged", "I was merged, and before that I was changed.")
    with Memory(path, embedder=first_embedder, cache_dir=cache) as memory:
        memory.merge(cache / "other.mem")
        memory.add("after the erasure", id="late", agent_id="helper")
    with path.open("ab") as file:
        file.write(b"MKF1 an append that did not finish")


def change_embedder(path: Path, cache: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        memory = Memory(path, embedder=embed, cache_dir=cache)
        memory.rebuild()
    memory.update("n5", metadata={"kind": "changed"})
    memory.delete("n6")
    memory.add("note 6 again", id="n6", user_id="bob", run_id="r1")
    memory.close()


def expected(path: Path, cache: Path) -> dict:
    with Memory(path, embedder=embed, cache_dir=cache) as memory:
        ids = ["home", "odd/ id.é@x", "merged", "late", "gone", *(f"n{i}" for i in range(20))]
        opened = memory._store
        return {
            "items": [item.model_dump(mode="json") for item in memory.list(limit=1000).items],
            "history": {id_: [change.model_dump(mode="json") for change in memory.history(id_)] for id_ in ids},
            "vectors": np.round(np.stack(memory.to_arrow()["vector"].to_pylist()), 4).tolist(),
            "head": memory.verify().head,
            "position": opened.log.cursor.position,
            "file_id": opened.log.header.file_id.hex(),
            "generation": opened.log.header.generation,
            "config": {key: value for key, value in opened.config.items() if key != "probe"},
            "notes": [[int(kind), value] for kind, value in opened.notes],
        }


def main() -> None:
    if PATH.exists():
        raise SystemExit(f"{PATH} exists and is never made again")
    store.CHECKPOINT_ON_CLOSE = 3
    with tempfile.TemporaryDirectory() as cache:
        fill(PATH, Path(cache))
        merge_and_damage(PATH, Path(cache))
        change_embedder(PATH, Path(cache))
        text = json.dumps(expected(PATH, Path(cache)), ensure_ascii=False, indent=1)
    (HERE / "v1.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
