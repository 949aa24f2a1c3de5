"""A need that is asked again in other words: does the memory of past needs bring its evidence back?

    python -m benchmarks.recall.needs                 # LoCoMo and the demo conversation, about four minutes
    python -m benchmarks.recall.needs --demo-only     # the demo alone, a quarter of a minute

Half of the needs of a conversation are taught (query and evidence, once), then asked in other words; the other half
are the unrelated needs, which ought to lose nothing. Then the halves change roles. Unrelated needs that happen to
share evidence with a taught one gain; they are left out of the losses.

LoCoMo    rewordings made by rule: the same words, filler words around them, the content words alone and shuffled,
          a pronoun for the speaker's name. Unrelated needs are asked as they stand.
demo      `needs.json`: 80 needs over the conversation that comes with memkit, each with two paraphrases, no two of
          the three wordings sharing a content word. What counts as none: FUNCTION words and NAMES (`check` proves it).
          Unrelated needs are asked by their paraphrases.

Below all methods lie the scores of `Memory.search(mode="hybrid")`: its 50 best items and what the method adds.
A baseline adds `weight * span * bonus` to them (span: best minus median candidate); its gate and weight are the best
of a grid, once within the limits (unrelated needs lose at most 0.3 R@10 and 0.5 MRR, per cent) and once without.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.recall.datasets import DEFAULT_DATA, load_locomo
from memkit import Memory
from memkit.embed import default_embedder
from memkit.fast import familiarity, needs
from memkit_storage.analyzer import analyze

# fmt: off
FUNCTION = frozenset([
    "a", "about", "after", "again", "against", "all", "am", "an", "and", "any", "are", "as", "at", "back", "be",
    "been", "before", "being", "below", "between", "both", "but", "by", "can", "could", "did", "do", "does",
    "doing", "down", "during", "else", "for", "from", "further", "get", "had", "has", "have", "having", "he", "her",
    "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "itself", "just", "many",
    "may", "me", "might", "more", "most", "much", "must", "my", "no", "nor", "not", "of", "off", "on", "once",
    "one", "ones", "only", "or", "other", "our", "out", "over", "own", "please", "same", "she", "should", "so",
    "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "through", "to", "too", "under", "until", "up", "very", "was", "we", "were", "what", "when", "where", "which",
    "while", "who", "whom", "whose", "why", "will", "with", "without", "would", "you", "your",
])
NAMES = frozenset([
    "nora", "juno", "lotte", "bruno", "carolina", "catarina", "pastel", "günter", "schmidt", "herr", "yuki",
    "yıldız", "mum", "dad", "madeira", "porto", "portugal", "portuguese", "hamburg", "ottensen", "massarelos",
    "maré", "aberta", "kessler", "pohl",
])
# fmt: on
FILLERS = ("Hey, quick question:", "Can you remind me,", "I was wondering,", "By the way,", "Do you happen to know,")
CANDIDATES = 50
LIMITS = (-0.3, -0.5)  # R@10 and MRR of unrelated needs, in points
REWORDED = ("same", "filler", "shuffled", "pronoun")
PARAPHRASES = ("first", "second")

Embed = Callable[[list[str]], Any]
Reader = Callable[[Any], Any]  # (d,) query vector or text -> (n,) bonus of the items


class Asked(NamedTuple):
    texts: list[str]
    vectors: np.ndarray  # (q, d)
    scores: np.ndarray  # (q, n) of Memory.search, 0 where an item is not found


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation, its needs in several wordings, and the rows of their evidence."""

    name: str
    items: np.ndarray  # (n, d)
    evidence: list[list[int]]
    asked: dict[str, Asked]  # "need" is the wording that is taught

    @property
    def is_demo(self) -> bool:
        return self.name == "demo"


# the test set


def content(text: str) -> set[str]:
    """Stems of a text without function words and names."""
    idle = {token for word in FUNCTION | NAMES for token in analyze(word)}
    return set(analyze(text)) - idle


def load_needs() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(__file__).with_name("needs.json").read_text(encoding="utf-8"))
    return found


def check(entries: Iterable[dict[str, Any]]) -> list[str]:
    """What is wrong with the paraphrases: every content word that two wordings of a need share."""
    wrong = []
    for entry in entries:
        wordings = [entry["need"], *entry["paraphrases"]]
        pairs = [(a, b) for i, a in enumerate(wordings) for b in wordings[:i]]
        wrong += [f"{a!r} and {b!r} share {shared}" for a, b in pairs if (shared := sorted(content(a) & content(b)))]
    return wrong


def reword(text: str, names: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Four wordings made by rule."""
    words = [word for word in re.findall(r"[\w']+", text) if word.lower() not in FUNCTION]
    rng.shuffle(words)
    pronoun = text
    for name in names:
        pronoun = re.sub(rf"\b{name}('s)?\b", lambda match: "their" if match.group(1) else "they", pronoun)
    opening = text if text.split(maxsplit=1)[0] in names else text[0].lower() + text[1:]
    filler = f"{rng.choice(FILLERS)} {opening}"
    return {"same": text, "filler": filler, "shuffled": " ".join(words) or text, "pronoun": pronoun}


def demo_case(embed: Embed, folder: Path) -> Case:
    lines = files("memkit").joinpath("data", "demo.jsonl").read_text(encoding="utf-8").splitlines()
    entries = load_needs()
    if wrong := check(entries):
        raise SystemExit("\n".join(wrong))
    wordings = {"need": [entry["need"] for entry in entries]}
    wordings |= {form: [entry["paraphrases"][i] for entry in entries] for i, form in enumerate(PARAPHRASES)}
    messages = [json.loads(line) for line in lines if line.strip()]
    return build("demo", messages, wordings, [entry["evidence"] for entry in entries], embed, folder)


def locomo_cases(data: Path, embed: Embed, folder: Path) -> Iterable[Case]:
    for conversation in load_locomo(data):
        rng, names = random.Random(conversation.name), sorted({turn.speaker or "" for turn in conversation.turns})
        forms = [reword(question.text, names, rng) for question in conversation.questions]
        wordings = {"need": [form["same"] for form in forms]} | {name: [f[name] for f in forms] for name in REWORDED}
        evidence = [question.evidence for question in conversation.questions]
        messages = [turn.message() for turn in conversation.turns]
        yield build(conversation.name, messages, wordings, evidence, embed, folder)


def build(
    name: str,
    messages: list[dict[str, Any]],
    wordings: dict[str, list[str]],
    evidence: Sequence[Sequence[str]],
    embed: Embed,
    folder: Path,
) -> Case:
    with Memory(folder / f"{name}.mem", embedder=embed, durability="os", cache_dir=folder) as memory:
        memory.add(messages)
        table = memory.to_arrow()
        row_of = {position: row for row, position in enumerate(table["position"].to_pylist())}
        row_of_id = {id_: row for row, id_ in enumerate(table["id"].to_pylist())}
        items = np.asarray(table["vector"].to_pylist(), np.float32)
        asked = {}
        for form, texts in wordings.items():
            scores = np.zeros((len(texts), len(items)), np.float32)
            for query, text in enumerate(texts):
                for hit in memory.search(text, limit=len(items)):
                    scores[query, row_of[hit.position]] = hit.score
            asked[form] = Asked(texts, _unit(embed(texts)), scores)
    return Case(name, _unit(items), [[row_of_id[id_] for id_ in ids] for ids in evidence], asked)


class Cached:
    """The default embedder, each text once."""

    def __init__(self) -> None:
        self._embedder = default_embedder()
        self._known: dict[str, Any] = {}

    def __call__(self, texts: list[str]) -> Any:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._embedder.embed_documents(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def _unit(vectors: Any) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


# methods: each is taught some needs of a case, and then gives every query (n,) bonuses in [0, 1]


def item_whitening(items: np.ndarray, kept: float = 0.2) -> familiarity.Whitening:
    """Centring and soft whitening from the items alone: eigenvalues 0.8 mean + 0.2 own."""
    covariance = np.cov(items.T)
    values, vectors = np.linalg.eigh(covariance)
    matrix = (vectors / np.sqrt((1 - kept) * values.mean() + kept * values)) @ vectors.T
    return familiarity.Whitening(items.mean(axis=0), matrix.astype(np.float32))


def _whitened(rows: np.ndarray, whitening: familiarity.Whitening | None) -> np.ndarray:
    return rows if whitening is None else _unit((rows - whitening.mean) @ whitening.matrix)


def knn(case: Case, taught: list[int], gate: float, *, whiten: bool) -> Reader:
    """Softmax over past needs by similarity, open above `gate`."""
    whitening = item_whitening(case.items) if whiten else None
    keys = _whitened(case.asked["need"].vectors[taught], whitening)
    served = _served(case, taught)

    def read(vector: np.ndarray) -> np.ndarray:
        near = keys @ _whitened(vector[None], whitening)[0]
        share = np.exp((near - near.max()) / 0.05)
        found: np.ndarray = _open(near.max(), gate) * ((share / share.sum()) @ served)
        return found

    return read


def matrix(case: Case, taught: list[int], gate: float, *, exact: bool) -> Reader:
    """A (d, d) matrix from whitened keys to whitened evidence: one pass of the delta rule, or least squares."""
    whitening = item_whitening(case.items)
    keys = _whitened(case.asked["need"].vectors[taught], whitening)
    items = _whitened(case.items, whitening)
    values = _unit(_served(case, taught) @ items)
    if exact:
        gram = keys.T @ keys + 0.05 * np.eye(keys.shape[1])
        weights = np.linalg.solve(gram, keys.T @ values)
    else:
        weights = np.zeros((keys.shape[1], items.shape[1]), np.float32)
        for key, value in zip(keys, values, strict=True):
            weights += 0.5 * np.outer(key, value - key @ weights)

    def read(vector: np.ndarray) -> np.ndarray:
        key = _whitened(vector[None], whitening)[0]
        found: np.ndarray = _open((keys @ key).max(), gate) * np.clip(items @ (key @ weights), 0, 1)
        return found

    return read


class QueryLog:
    """Past queries as documents that stand for their items, found by hybrid search."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._found: dict[Any, dict[str, np.ndarray]] = {}

    def __call__(self, case: Case, taught: list[int], gate: float) -> Reader:
        key = (case.name, tuple(taught))
        if key not in self._found:
            self._found[key] = self._search(case, taught)
        scores, served = self._found[key], _served(case, taught)

        def read(text: str) -> np.ndarray:
            found: np.ndarray = (np.clip((scores[text] - gate) / (1 - gate), 0, 1)[:, None] * served).max(axis=0)
            return found

        read.by_text = True  # type: ignore[attr-defined]
        return read

    def _search(self, case: Case, taught: list[int]) -> dict[str, np.ndarray]:
        """(taught,) scores of the past queries for every text that is asked; 0 below the fifth."""
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.mem"
            with Memory(path, embedder=self._embed, durability="os", cache_dir=folder) as memory:
                added = memory.add([{"role": "user", "content": case.asked["need"].texts[i]} for i in taught])
                row_of = {item.id: row for row, item in enumerate(added)}
                for text in dict.fromkeys(text for asked in case.asked.values() for text in asked.texts):
                    found[text] = np.zeros(len(taught), np.float32)
                    for hit in memory.search(text, limit=5):
                        found[text][row_of[hit.id]] = hit.score
        return found


def remember(case: Case, taught: Iterable[int], forms: Sequence[str] = ("need",)) -> needs.NeedsState:
    state = needs.empty(case.items.shape[1])
    for need in taught:
        for form in forms:
            state = needs.learn(state, case.asked[form].vectors[need], used=case.evidence[need])
    return state


def past_needs(case: Case, state: needs.NeedsState, whitening: familiarity.Whitening | None = None) -> Reader:
    """`memkit.fast.needs`, by default with its own whitening."""
    if whitening is None:
        covariance = np.cov(case.items.T).astype(np.float32)
        whitening = familiarity.whitening_of(state, case.items.mean(axis=0), covariance, len(case.items))
    prepared = familiarity.prepare(state, whitening)

    def read(vector: np.ndarray) -> np.ndarray:
        bonus = np.zeros(len(case.items), np.float32)
        for row, value in familiarity.recall(state, vector, whitening, prepared=prepared).bonus.items():
            bonus[row] = value
        return bonus

    return read


def _served(case: Case, taught: Sequence[int]) -> np.ndarray:
    """(taught, n): 1 for the evidence of each need."""
    found = np.zeros((len(taught), len(case.items)), np.float32)
    for row, need in enumerate(taught):
        found[row, case.evidence[need]] = 1
    return found


def _open(similarity: float, gate: float) -> float:
    return float(np.clip((similarity - gate) / (1 - gate), 0, 1))


# measuring


def combine(scores: np.ndarray, bonus: np.ndarray, weight: float | None) -> np.ndarray:
    """(n,) scores with the bonus: added with this weight, or by `familiarity.lift` when there is none."""
    shown = np.argpartition(-scores, CANDIDATES)[:CANDIDATES]
    chosen = np.union1d(shown, np.flatnonzero(bonus > 0))
    some = scores[chosen]
    combined = np.full(len(scores), -np.inf, np.float32)
    if weight is None:
        combined[chosen] = familiarity.lift(some, bonus[chosen])
    else:
        combined[chosen] = some + weight * (some.max() - np.median(some)) * bonus[chosen]
    return combined


def quality(scores: np.ndarray, evidence: Sequence[int]) -> tuple[float, float]:
    """R@10 and MRR, per cent."""
    ranks = 1 + (scores[None] > scores[evidence][:, None]).sum(axis=1)
    return 100 * float((ranks <= 10).mean()), 100 / float(ranks.min())


class Measured(NamedTuple):
    """Rows (R@10, MRR) by wording: of reworded needs, and the differences that unrelated needs see."""

    again: dict[str, list[tuple[float, float]]]
    unrelated: dict[str, list[tuple[float, float]]]

    def mean(self, form: str) -> float:
        return float(np.mean([row[0] for row in self.again[form]]))

    def loss(self, part: str) -> tuple[float, float]:
        recall, mrr = np.mean(self.unrelated[part], axis=0)
        return float(recall), float(mrr)

    def within(self) -> bool:
        losses = [self.loss(part) for part in self.unrelated]
        return all(recall >= LIMITS[0] and mrr >= LIMITS[1] for recall, mrr in losses)

    def score(self) -> float:
        return float(np.mean([self.mean(form) for form in self.again]))


def halves(case: Case, repeats: int) -> Iterable[tuple[list[int], list[int]]]:
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(case.evidence)).tolist()
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        yield first, second
        yield second, first


def measure(
    cases: Sequence[Case],
    teach: Callable[[Case, list[int]], Reader | None],
    weight: float | None,
    asked_again: Sequence[str] = REWORDED + PARAPHRASES,
) -> Measured:
    result = Measured({}, {})
    for case in cases:
        for taught, others in halves(case, 3 if case.is_demo else 1):
            read = teach(case, taught)
            forms = [form for form in asked_again if form in case.asked]
            for form in forms:
                label = "paraphrase" if case.is_demo else form
                rows = [_ask(case, form, need, read, weight)[1] for need in taught]
                result.again.setdefault(label, []).extend(rows)
            known = {row for need in taught for row in case.evidence[need]}
            for form in forms if case.is_demo else ["same"]:
                for need in others:
                    if not known & set(case.evidence[need]):
                        before, after = _ask(case, form, need, read, weight)
                        loss = (after[0] - before[0], after[1] - before[1])
                        result.unrelated.setdefault("demo" if case.is_demo else "LoCoMo", []).append(loss)
    return result


def _ask(
    case: Case, form: str, need: int, read: Reader | None, weight: float | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    asked, evidence = case.asked[form], case.evidence[need]
    scores = asked.scores[need]
    before = quality(scores, evidence)
    if read is None:
        return before, before
    bonus = read(asked.texts[need] if hasattr(read, "by_text") else asked.vectors[need])
    return before, quality(combine(scores, bonus, weight), evidence)


# the tables


def show(name: str, found: Measured) -> None:
    again = "".join(f"{found.mean(form):>10.1f}" for form in found.again)
    losses = "".join("{:>+9.2f}{:>+7.2f}".format(*found.loss(part)) for part in found.unrelated)
    print(f"{name:<44}{again}{losses}", flush=True)


def head(found: Measured) -> None:
    print(f"{'':<44}" + "".join(f"{form:>10}" for form in found.again) + "".join(f"{p:>16}" for p in found.unrelated))
    print(f"{'':<44}" + f"{'R@10':>10}" * len(found.again) + f"{'R@10':>9}{'MRR':>7}" * len(found.unrelated))


def compare(cases: Sequence[Case], embed: Embed) -> None:
    """Every method, with its best gate and weight within the limits, and its best without."""
    nothing = measure(cases, lambda case, taught: None, 0.0)
    head(nothing)
    show("no memory", nothing)
    methods: dict[str, Callable[..., Reader]] = {
        "kNN, raw keys": lambda c, t, g: knn(c, t, g, whiten=False),
        "kNN, keys whitened by the items": lambda c, t, g: knn(c, t, g, whiten=True),
        "delta matrix, whitened keys": lambda c, t, g: matrix(c, t, g, exact=False),
        "least squares, whitened keys": lambda c, t, g: matrix(c, t, g, exact=True),
        "past-query log, hybrid": QueryLog(embed),
    }
    for name, make in methods.items():
        tried = []
        for gate in (0.3, 0.5, 0.6, 0.7, 0.8):
            made: dict[Any, Reader] = {}

            def teach(case: Case, taught: list[int], gate: float = gate, made: dict[Any, Reader] = made) -> Reader:
                key = (case.name, tuple(taught))
                return made.get(key) or made.setdefault(key, make(case, taught, gate))  # noqa: B023

            tried += [(gate, weight, measure(cases, teach, weight)) for weight in (1.0, 4.0)]
        for label, some in (("in", [one for one in tried if one[2].within()]), ("out", tried)):
            if some:
                gate, weight, found = max(some, key=lambda one: one[2].score())
                show(f"{name} ({label}: {gate}, {weight})", found)
    show("memory of past needs", measure(cases, lambda c, t: past_needs(c, remember(c, t)), None))
    ours = {c.name: item_whitening(c.items) for c in cases}
    found = measure(cases, lambda c, t: past_needs(c, remember(c, t), ours[c.name]), None)
    show("... with the items' whitening", found)
    show("... added, not lifted (1.5)", measure(cases, lambda c, t: past_needs(c, remember(c, t)), 1.5))


def robustness(cases: Sequence[Case]) -> None:
    """Wrong labels, several feedbacks, a second paraphrase, and less room than there are needs."""

    def noisy(case: Case, taught: list[int], rounds: int) -> Reader:
        rng, state = np.random.default_rng(0), needs.empty(case.items.shape[1])
        for _ in range(rounds):
            for need in taught:
                right = rng.random() >= 0.2
                used = case.evidence[need] if right else [int(rng.integers(len(case.items)))]
                state = needs.learn(state, case.asked["need"].vectors[need], used=used)
        return past_needs(case, state)

    def crowded(case: Case, taught: list[int], kept: int) -> Reader:
        """The newest needs that there is room for, as `needs.learn` keeps them."""
        return past_needs(case, remember(case, taught[-kept:]))

    print()
    for rounds in (1, 3, 5):
        show(f"20 % wrong feedback, {rounds} a need", measure(cases, lambda c, t, n=rounds: noisy(c, t, n), None))  # type: ignore[misc]
    demo = [case for case in cases if case.is_demo]
    for kept in (16, 32):
        show(f"no room for more than {kept} needs", measure(cases, lambda c, t, k=kept: crowded(c, t, k), None))  # type: ignore[misc]
    taught_two = measure(demo, lambda c, t: past_needs(c, remember(c, t, ("need", "first"))), None, ("second",))
    print(f"\ndemo, second paraphrase once the first was answered too: R@10 {taught_two.mean('paraphrase'):.1f}")


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that holds locomo/")
    parser.add_argument("--demo-only", action="store_true", help="leave LoCoMo out")
    parser.add_argument("--quick", action="store_true", help="leave the baselines out")
    options = parser.parse_args()
    embed = Cached()
    with tempfile.TemporaryDirectory() as folder:
        cases = [] if options.demo_only else list(locomo_cases(options.data, embed, Path(folder)))
        cases.append(demo_case(embed, Path(folder)))
    if options.quick:
        found = measure(cases, lambda c, t: past_needs(c, remember(c, t)), None)
        head(found)
        show("no memory", measure(cases, lambda case, taught: None, 0.0))
        show("memory of past needs", found)
    else:
        compare(cases, embed)
    robustness(cases)


if __name__ == "__main__":
    main()
