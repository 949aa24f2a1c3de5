"""Reading a long conversation through a small window: what memory takes off the next-token loss, and what it costs.

    python -m benchmarks.lm.reading --data ../shared/data/locomo/conv-26.json.gz ../shared/data/beam/100K-01.json.gz
    python -m benchmarks.lm.reading --data chat.json --model qwen --tokens 3000 --systems frozen attached
    python -m benchmarks.lm.reading --data chat.json --tokens 3000 --systems frozen attached ablations slots

A conversation is read as `Speaker: text` lines, its first --tokens tokens, in chunks of 128: each chunk is scored, and then
learned from, once. A token sees at least the 192 tokens before it, 319 at most, through a sliding key-value cache with
four sinks; frozen rows see the same. `window anew` and `retrieval` have no cache: 192 tokens are computed anew for each chunk,
and before them stand, with `retrieval`, the blocks of 192 tokens of the stream's earlier past that BM25 finds with the last 128;
they are measured over the last third alone. Right after, a text of another kind is scored with nothing in view and nothing
learned on the way. One run: nothing here is random but the fixed keys.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.lm.streams import UNRELATED, streams, thirds, unrelated
from benchmarks.lm.systems import ABLATIONS, RMS, Outcome, Slots, Whole, hidden_states, in_prompt, read
from benchmarks.models import MODELS, best_device, load
from memkit.fast.lm.attached import WINDOW
from memkit.fast.lm.weights import Rule

SYSTEMS = ("frozen", "attached", "2x", "4x", "in-place", "anew", "retrieval", "slots", "ablations")
Table = dict[str, dict[str, Any]]


def measure(model: Any, first: int, rows: Sequence[Any], other: list[int], wanted: Sequence[str]) -> Table:
    """Of each system: per stream the loss of each third (None where it was not measured), after, and bytes of state."""
    table: Table = {}
    tokens = [row.tokens for row in rows]

    def add(name: str, outcome: Outcome, seconds: float) -> None:
        table[name] = {
            "thirds": [thirds(one) for one in outcome.surprise],
            "after": [float(one.mean()) if len(one) else None for one in outcome.after],
            "bytes": outcome.size,
            "seconds": seconds,
        }
        last = ", ".join(f"{one[2]:.3f}" for one in table[name]["thirds"])
        print(f"{name}: last third {last}; {seconds:.0f} s", file=sys.stderr, flush=True)

    for name, rule, more in _readings(wanted):
        began = time.perf_counter()
        with hidden_states(model) as seen:
            outcome = read(model, first, tokens, other, rule, **more)
        add(name, outcome, time.perf_counter() - began)
        if "slots" in wanted and name in ("frozen", "attached"):
            add(f"{name} + slots", _with_slots(outcome, seen, tokens, other), time.perf_counter() - began)
    for name, budget in (("anew", 0), ("retrieval", WINDOW)):
        if name in wanted:
            began = time.perf_counter()
            losses = [_last_third(model, first, row, budget) for row in tokens]
            title = "frozen, window anew" if not budget else f"frozen, window anew + retrieval of {WINDOW}"
            table[title] = {
                "thirds": [[None, None, loss] for loss in losses],
                "after": [None] * len(losses),
                "bytes": 0,
            }
            table[title]["seconds"] = time.perf_counter() - began
    return table


def _readings(wanted: Sequence[str]) -> list[tuple[str, Any, dict[str, Any]]]:
    known: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("frozen", "frozen", None, {}),
        ("attached", "attached", Rule(), {}),
        ("2x", "frozen, window x 2", None, {"window": 2 * WINDOW}),
        ("4x", "frozen, window x 4", None, {"window": 4 * WINDOW}),
        ("in-place", "dynamic evaluation in place", RMS(), {"fast": Whole}),
    ]
    chosen = [(title, rule, more) for name, title, rule, more in known if name in wanted]
    ablations = [(f"attached, {name}", rule, more) for name, (rule, more) in ABLATIONS.items()]
    return chosen + (ablations if "ablations" in wanted else [])


def _last_third(model: Any, first: int, row: list[int], budget: int) -> float:
    return float(in_prompt(model, first, row, 2 * (len(row) // 3), budget).mean())


def _with_slots(outcome: Outcome, seen: list[torch.Tensor], rows: list[list[int]], other: list[int]) -> Outcome:
    """The same reading with slots at the output, unrelated text read on from the stream."""
    hidden, slots = torch.cat(seen, dim=1), Slots()
    length = max(map(len, rows))
    surprise, after = [], []
    for at, row in enumerate(rows):
        own = torch.cat([hidden[at, : len(row)], hidden[at, length : length + len(other)]])
        scores = torch.cat([torch.from_numpy(outcome.surprise[at]), torch.from_numpy(outcome.after[at])]).numpy()
        better = slots.read(own, row + other, scores)
        surprise.append(better[: len(row)])
        after.append(better[len(row) :])
    return Outcome(surprise, after, outcome.size + slots.size * hidden.shape[-1] * 2)


def show(table: Table, names: Sequence[str]) -> str:
    """A Markdown table a stream."""
    lines: list[str] = []
    base = table["frozen"]
    for at, name in enumerate(names):
        lines += [
            f"| {name} | first | second | last | last, against frozen | unrelated after | MB of state |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for system, row in table.items():
            cells = [_number(value) for value in row["thirds"][at]]
            cells.append(_against(row["thirds"][at][2], base["thirds"][at][2]))
            cells.append(_against(row["after"][at], base["after"][at]))
            lines.append(f"| {system} | {' | '.join(cells)} | {row['bytes'] / 1e6:.1f} |")
        lines.append("")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _against(value: float | None, base: float | None) -> str:
    return "–" if value is None or base is None else f"{100 * (value / base - 1):+.1f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--unrelated", type=Path, default=UNRELATED, metavar="FILE")
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--after", type=int, default=1500, help="tokens of unrelated text")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["frozen", "2x", "4x", "in-place", "attached"])
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    model, tokenizer = load(options.model, getattr(torch, options.dtype), options.device)
    first = int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
    rows = streams(options.data, tokenizer, options.tokens)
    other = unrelated(options.unrelated, tokenizer, options.after)
    table = measure(model, first, rows, other, list(dict.fromkeys(["frozen", *options.systems])))
    print(show(table, [f"{row.name}, {len(row.tokens):,} tokens" for row in rows]))
    if options.json:
        options.json.write_text(json.dumps({"streams": [row.name for row in rows], "systems": table}, indent=1))


if __name__ == "__main__":
    main()
