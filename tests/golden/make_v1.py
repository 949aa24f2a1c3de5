"""Made v1.mem and v1.json once, with memkit 0.1.0. Never run again: every later version must read the file as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import embed

from memkit import Memory


def main() -> None:
    here = Path(__file__).parent
    path = here / "v1.mem"
    if path.exists():
        raise SystemExit(f"{path} exists and is never made again")
    with Memory(path, embedder=embed, cache_dir=here / "cache") as memory:
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
        memory.add("after the erasure", id="late", agent_id="helper")
        memory.update("n5", metadata={"kind": "changed"})
        expected = {
            "items": [item.model_dump(mode="json") for item in memory.list(limit=1000).items],
            "history": {
                i: [c.model_dump(mode="json") for c in memory.history(i)] for i in ("home", "n3", "n5", "gone")
            },
            "vectors": np.round(np.stack(memory.to_arrow()["vector"].to_pylist()), 4).tolist(),
        }
    (here / "v1.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
