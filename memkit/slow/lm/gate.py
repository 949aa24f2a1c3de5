"""The gate of a language model's band: which of its items pass, and whether the band does.

An item passes if the model tells it in a wording that it was not taught, if its slot stays shut on text that is about
nobody in particular, and if nothing is told otherwise for it that was told before; what does not is left out of the
band, with the reason. The band passes on other wordings: most of the new items are told, those told before are told
still, other text costs no more, and everyday questions are answered as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from memkit.slow.gate import Verdict
from memkit.slow.lm import probes, scope
from memkit.slow.lm.anchors import TEXTS
from memkit.slow.lm.asking import continued
from memkit.slow.lm.ear import Ear
from memkit.slow.lm.examples import Tokens, opened, plain
from memkit.slow.lm.expert import Expert
from memkit.slow.lm.probes import CANARIES, LONGEST, Probe
from memkit.slow.lm.slots import applied, scope_layer
from memkit.slow.lm.upper import open_at

ASKED = 48  # wordings, of new items and of old ones
OLD_LOSS = 0.02  # share of old wordings that may be lost
TEXT_LOSS = 0.005  # relative rise of the loss on text that no item is about
LEARNED = 0.5  # share of wordings of new items that must be told right


class Exam(NamedTuple):
    """Wordings that an item was not taught in: one to choose items by, the others to judge the band by."""

    first: list[Probe]
    others: list[Probe]

    @classmethod
    def of(cls, found: Iterable[Probe]) -> Exam:
        """From what `probes.held_out` gives for some items: several wordings of each value, one after the other."""
        first: list[Probe] = []
        others: list[Probe] = []
        seen: set[tuple[str, str]] = set()
        for probe in found:
            value = probe.item, probe.form.answer
            (others if value in seen else first).append(probe)
            seen.add(value)
        return cls(first, others)

    def about(self, items: Iterable[str]) -> list[Probe]:
        """Of the others those about some items; an even sample if they are many."""
        wanted = set(items)
        found = [probe for probe in self.others if probe.item in wanted]
        return found[:: -(-len(found) // ASKED)] if found else []


def sifted(model: Any, tokenizer: Any, new: Expert, kept: Expert | None, exam: Exam) -> tuple[Expert, dict[str, str]]:
    """What is left of a new band without items that fail, and why each of those does.

    Args:
        kept: the band that acts beside it.
    """
    failed = dict.fromkeys(opened_by_others(model, tokenizer, new), "it opens on text that is about somebody else")
    new = new.without(failed)
    asked = [probe for probe in exam.first if probe.item in new.items]
    with applied(model, tokenizer, chain(kept, new)):
        right = probes.recall(model, tokenizer, asked).right
    told = {probe.item for probe, is_right in zip(asked, right, strict=True) if is_right}
    untold = {probe.item for probe in asked} - told
    failed |= dict.fromkeys(untold, "it is not told in other words")
    new = new.without(untold)
    disturbing = _disturbing(model, tokenizer, new, kept, exam) if kept else []
    return new.without(disturbing), failed | dict.fromkeys(disturbing, "with it, something is not told that was")


def opened_by_others(model: Any, tokenizer: Any, expert: Expert) -> list[str]:
    """Items whose slot opens in everyday questions, their answers, or texts."""
    asked = [opened(tokenizer, text) for text in CANARIES]
    said = continued(model, tokenizer, asked, LONGEST)
    rows = [*(a + b for a, b in zip(asked, said, strict=True)), *(plain(tokenizer, text) for text in TEXTS)]
    return _opening(model, tokenizer, expert, rows)


def _disturbing(model: Any, tokenizer: Any, new: Expert, kept: Expert, exam: Exam) -> list[str]:
    """New items whose slot opens where the band before told something right that is not told beside them."""
    asked = exam.about(kept.items)
    with applied(model, tokenizer, chain(kept, new)):
        after = probes.recall(model, tokenizer, asked)
    wrong = [at for at, is_right in enumerate(after.right) if not is_right]
    with applied(model, tokenizer, chain(kept)):
        before = probes.recall(model, tokenizer, [asked[at] for at in wrong])
    lost = [at for at, was_right in zip(wrong, before.right, strict=True) if was_right]
    rows = [probes.prompt(tokenizer, asked[at].form) + plain(tokenizer, after.answers[at]) for at in lost]
    return _opening(model, tokenizer, new, rows, beside=kept)


def _opening(
    model: Any, tokenizer: Any, expert: Expert, rows: Sequence[Tokens], *, beside: Expert | None = None
) -> list[str]:
    """Items of which a slot opens somewhere in rows of tokens."""
    if not expert.items:
        return []
    bands, open_, ear = chain(beside, expert), torch.zeros(len(expert.items), dtype=torch.bool), Ear(tokenizer)
    for row, hidden in zip(rows, scope.states(model, rows, scope_layer(model)), strict=True):
        open_ |= open_at(hidden, bands, row, ear).any(0)[-len(open_) :].cpu()
    return [item for item, is_open in zip(expert.items, open_.tolist(), strict=True) if is_open]


def judge(model: Any, tokenizer: Any, whole: Expert, kept: Expert | None, exam: Exam) -> Verdict:
    """The verdict on a band.

    Args:
        whole: all of its slots. kept: those that acted before.
    """
    known = kept.items if kept else ()
    fresh, past = exam.about(set(whole.items) - set(known)), exam.about(known)
    arms = [_told(model, tokenizer, chain(one), fresh) for one in (kept, whole)]
    metrics = {"probes": float(len(fresh)), "probes_now": arms[0], "probes_band": arms[1]}
    metrics |= compared(model, tokenizer, chain(kept), chain(whole), past)
    faults = [*_untold(metrics), *worse(metrics)] if set(whole.items) > set(known) else ["nothing new was learned"]
    told = f"{arms[1]:.0%} of {len(fresh)} new wordings told right, {arms[0]:.0%} before"
    return Verdict(not faults, faults or [told], metrics)


def compared(
    model: Any, tokenizer: Any, before: Sequence[Expert], after: Sequence[Expert], past: Sequence[Probe]
) -> dict[str, float]:
    """What should stay, under the bands that acted and those that would: old wordings, other text, everyday answers."""
    now, then = (_measured(model, tokenizer, one, past) for one in (before, after))
    return {
        "old": float(len(past)), "old_now": now.past, "old_band": then.past,
        "text": then.text / now.text - 1, "canaries": float(len(CANARIES)),
        "canaries_same": float(sum(a == b for a, b in zip(now.said, then.said, strict=True))),
    }  # fmt: skip


class _Measured(NamedTuple):
    past: float
    text: float
    said: list[str]


def _measured(model: Any, tokenizer: Any, bands: Sequence[Expert], past: Sequence[Probe]) -> _Measured:
    with applied(model, tokenizer, bands):
        return _Measured(
            probes.recall(model, tokenizer, past).share,
            probes.text_loss(model, tokenizer, TEXTS),
            probes.canaries(model, tokenizer),
        )


def _told(model: Any, tokenizer: Any, bands: Sequence[Expert], fresh: Sequence[Probe]) -> float:
    with applied(model, tokenizer, bands):
        return probes.recall(model, tokenizer, fresh).share


def _untold(metrics: dict[str, float]) -> list[str]:
    told = metrics["probes_band"]
    learned = told >= max(LEARNED, metrics["probes_now"])
    return [] if learned else [f"probes: {told:.0%} of the new wordings told right"]


def worse(metrics: dict[str, float]) -> list[str]:
    """What did not stay, of what `compared` looks at."""
    old, text = metrics["old_band"], metrics["text"]
    checks = [
        (old >= metrics["old_now"] - OLD_LOSS, f"old probes: {old:.0%}, before {metrics['old_now']:.0%}"),
        (text <= TEXT_LOSS, f"text: its loss rises by {text:.2%}"),
        (metrics["canaries_same"] == metrics["canaries"], "canaries: an everyday question is answered otherwise"),
    ]
    return [fault for holds, fault in checks if not holds]


def chain(*experts: Expert | None) -> list[Expert]:
    """Bands that have slots."""
    return [expert for expert in experts if expert is not None and expert.items]
