"""A memory inside a language model: what `memory.attach(model, tokenizer)` gives.

Hooks add fast weights beside the model's own; nothing of the model is written. Reading changes them, and so does what
the model is given and generates meanwhile, which is learned when the next reading or sequence begins. One state a
scope, kept in the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from memkit.arguments import complete
from memkit.fast.lm import saved
from memkit.fast.lm.places import identity
from memkit.fast.lm.reader import CACHE_NAMES, FastWeights, Reader, Surprise, Tokens, common
from memkit.fast.lm.weights import LMState, Rule
from memkit.ingest import drafts
from memkit.slow.lm.held import acting
from memkit.slow.lm.slots import Slots
from memkit_storage.errors import InvalidInput
from memkit_storage.format import FrameType
from memkit_storage.store import Store
from memkit_storage.times import parse_time

if TYPE_CHECKING:
    from memkit.items import Item
    from memkit.memory import Memory

RANK = 64
WINDOW = 192  # tokens in view while reading
CHUNK = 128  # tokens between writes
SAVE_EVERY = 1 << 15  # tokens read

Family = tuple[str | None, ...]


class Reading(NamedTuple):
    """What a text was to the model when it came.

    Attributes:
        tokens: ids. surprise: (n,) nats of each token, before anything was learned from it.
    """

    tokens: Tokens
    surprise: Surprise

    @property
    def mean(self) -> float:
        """Nats a token; 0 of an empty text."""
        return float(self.surprise.mean()) if len(self.surprise) else 0.0

    @property
    def salience(self) -> float:
        """1 - the geometric mean of the tokens' probabilities, in [0, 1]."""
        return 1.0 - float(np.exp(-self.mean))


class User(NamedTuple):
    """One row of the batch: its scope and the family that learns with it."""

    scope: dict[str, str]
    family: Family


class AttachedLM:
    """A language model with a memory; use it as a context manager.

    Attributes:
        model, tokenizer: as they were passed. listen: whether forward and generate teach, too; may be switched.
    """

    def __init__(
        self,
        memory: Memory,
        store: Store,
        users: Sequence[User],
        model: Any,
        tokenizer: Any,
        *,
        fresh: bool,
        listen: bool,
        consolidated: bool = True,
        rank: int = RANK,
        as_of: int | None = None,
    ) -> None:
        self.model, self.tokenizer, self.listen = model, tokenizer, listen
        self._memory, self._store, self._users, self._rule = memory, store, list(users), Rule()
        self._plain = getattr(model, "_orig_mod", model)  # of torch.compile
        self._fast, self._name = FastWeights(self._plain, rank), identity(self._plain)
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._reader = Reader(
            self._plain, self._fast, users=len(users), window=WINDOW, chunk=CHUNK, first=int(first or 0)
        )
        empty = self._fast.start(1)
        states = [
            empty if fresh else saved.restore(store, user.family, self._name, empty, as_of) for user in self._users
        ]
        self._state = LMState(*(torch.cat(parts) for parts in zip(*states, strict=True)))
        self._saved, self._erasures, self._writes = self._state, self._count_erasures(), as_of is None
        self._heard: list[Tokens] = [[] for _ in users]  # not learned yet
        self._sequences: list[Tokens] = [[] for _ in users]  # begun last

        self._ear: Any = None
        self._busy = False
        self._slots: Slots | None = None  # of what the slow tier has put beside the model
        self._consolidated, self._as_of, self._bands_seen = consolidated, as_of, 0

    # attaching

    def __enter__(self) -> Self:
        if getattr(self._plain, "_memkit_attached", False):
            raise InvalidInput(
                "this model has a memory attached already; leave that block, or attach both users at once"
            )
        self._plain._memkit_attached = True
        self._fast.install()
        self._ear = self._plain.register_forward_pre_hook(self._hear, with_kwargs=True)
        self._consolidate()
        self._show()
        return self

    def __exit__(self, *exc: object) -> None:
        """Take everything out again and keep the state; the model is bit for bit as it was."""
        try:
            if exc[0] is None:
                self.flush()
            self.save()
        finally:
            self._ear.remove()
            self._fast.remove()
            if self._slots is not None:
                self._slots.remove()
                self._slots = None
            self._fast.said, self._ear = None, None
            del self._plain._memkit_attached
            _compile_anew(self.model)

    def _consolidate(self) -> None:
        """Put in what the slow tier has beside this model for these users now, in place of what was in."""
        if self._ear is None or not self._consolidated:  # outside the block the model is left alone
            return
        if self._slots is not None:
            self._slots.remove()
            self._slots = None
        with self._store.lock:
            self._bands_seen = len(self._store.learning)
        chains = [acting(self._store, user.family, self._name, self._as_of) for user in self._users]
        if any(chains):
            self._slots = Slots(self._plain, self.tokenizer).use(*chains).install()

    def _show(self) -> None:
        """Let the hooks say what the state holds now."""
        self._fast.said = self._state.weights.unbind(1) if bool(self._state.tokens.any()) else None
        _compile_anew(self.model)

    # reading

    def read(self, text: str | Sequence[str], *, learn: bool = True) -> Any:
        """Read a text, or one a user in their order, and learn from it once, chunk by chunk.

        Args:
            learn: False only tells how surprising it is.

        Returns:
            A `Reading`, or a list of them for several users.

        Raises:
            InvalidInput: outside the `with` block, no text, or not one text a user. Nothing was read.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if len(texts) != len(self._users) or not all(isinstance(one, str) for one in texts):
            raise InvalidInput(f"{len(texts)} texts for {len(self._users)} users; pass one string a user, in order")
        self.flush()
        rows = [self.tokenizer(one, add_special_tokens=False)["input_ids"] for one in texts]
        readings = [Reading(*pair) for pair in zip(rows, self._learn(rows, learn), strict=True)]
        return readings[0] if isinstance(text, str) else readings

    def add(
        self,
        content: str | Mapping[str, Any] | Sequence[Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: datetime | str | None = None,
    ) -> list[Item]:
        """Remember verbatim, as `Memory.add` does, and read it; the items carry the model's salience as `surprise`.

        Raises:
            InvalidInput, IdConflict: as `Memory.add` and `read`; for one attached user only. Nothing stays read then.
        """
        if len(self._users) > 1:
            raise InvalidInput(f"add() with {len(self._users)} users; attach one, or use memory.add and lm.read")
        time = None if occurred_at is None else parse_time(occurred_at)
        entries = [complete(draft, metadata, time) for draft in drafts(content)]
        before, view = self.snapshot(), self._reader.view()
        try:
            read = [replace(entry, surprise=round(self.read(entry.text).salience, 4)) for entry in entries]
            return self._memory.scope(**self._users[0].scope).add_drafts(read)
        except BaseException:
            self._state = before
            self._reader.look(view)
            self._show()
            raise

    def admit(self, store: Store, scope: Mapping[str, str]) -> None:
        """Let in what a scope of a file holds, where it is all of the one user's that this model is attached for.

        Raises:
            InvalidInput: another file, several users, or a scope that holds what is not that user's.
        """
        if store is not self._store:
            raise InvalidInput("the model is attached to another memory file; recall from that one, or use lm.read")
        if len(self._users) > 1:
            raise InvalidInput(f"recall into {len(self._users)} users; attach one, or use lm.read with a text for each")
        own = self._users[0].scope
        if any(scope.get(name) != value for name, value in own.items()):
            raise InvalidInput(f"a recall of {dict(scope)} into a model attached for {own}; recall in that scope")

    def _learn(self, rows: list[Tokens], learn: bool = True) -> list[Surprise]:
        if self._ear is None:
            raise InvalidInput('not attached; write "with memory.attach(model, tokenizer) as lm:" around it')
        self._obey_erasures()
        self._follow_bands()
        self._busy, view = True, self._reader.view()
        try:
            state, surprises = self._reader.read(self._state, rows, self._rule if learn else None)
        finally:
            self._busy = False
        if learn:
            self._state = state
            self._show()
        else:
            self._reader.look(view)
        if int((self._state.tokens - self._saved.tokens).max()) >= SAVE_EVERY:
            self.save()
        return surprises

    # listening

    def _hear(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Note what the model is given; what came before is learned when a new sequence begins."""
        ids = args[0] if args else given.get("input_ids")
        if self._busy or not isinstance(ids, Tensor):
            return
        if len(ids) % len(self._users):
            raise InvalidInput(f"a batch of {len(ids)} rows for {len(self._users)} attached users; pass rows for each")
        if not self.listen:
            return
        past = next((given[name] for name in CACHE_NAMES if given.get(name) is not None), None)
        begins = past is None or not past.get_seq_length()
        if begins:
            self.flush()
        mask, each = given.get("attention_mask"), len(ids) // len(self._users)
        for user in range(len(self._users)):
            self._note(user, _real(ids, mask, user * each), begins)

    def _note(self, user: int, row: Tokens, begins: bool) -> None:
        """Of a sequence, what the one before did not begin with: who sends a whole chat each time teaches it once."""
        if begins:
            known = common(row, self._sequences[user])
            self._sequences[user] = row
            row = row[known:]
        else:
            self._sequences[user] = self._sequences[user] + row
        self._heard[user] += row

    def flush(self) -> None:
        """Learn now what forward and generate have shown."""
        if any(self._heard):
            heard, self._heard = self._heard, [[] for _ in self._users]
            self._learn(heard)

    # the state

    def reset(self) -> None:
        """Forget what was read: the model says what it said before any of it."""
        self._heard = [[] for _ in self._users]
        self._sequences = [[] for _ in self._users]
        self._reader.forget()
        self._state = self._fast.start(len(self._users))
        self._show()

    def snapshot(self) -> LMState:
        """What was read so far, as a value."""
        self.flush()
        return self._state

    def restore(self, state: LMState) -> None:
        """Go on from a snapshot of this model and as many users.

        Raises:
            InvalidInput: it is of another shape.
        """
        if state.weights.shape != self._state.weights.shape:
            raise InvalidInput(
                f"a state of shape {tuple(state.weights.shape)} for one of {tuple(self._state.weights.shape)}; "
                "restore into the model and the number of users that it was taken from"
            )
        self._heard = [[] for _ in self._users]
        self._reader.forget()
        self._state = state
        self._show()

    @contextmanager
    def branch(self) -> Iterator[Self]:
        """Try out: what is read inside the block is forgotten after it, and never kept in the file."""
        self.flush()
        before = self._state, self._reader.view(), [list(row) for row in self._sequences], self._writes
        self._writes = False
        self._reader.forget()
        try:
            yield self
        finally:
            self._state, view, self._sequences, self._writes = before
            self._heard = [[] for _ in self._users]
            self._reader.look(view)
            self._show()

    def save(self) -> None:
        """Keep the state in the file now; leaving the block does so, too, and reading does now and then.

        Raises:
            ReadOnly, StorageFailed: nothing was written.
        """
        self._obey_erasures()
        if not self._writes:
            return
        for at, user in enumerate(self._users):
            state, kept = self._state.user(at), self._saved.user(at)
            if not torch.equal(state.tokens, kept.tokens) or not torch.equal(state.weights, kept.weights):
                saved.save(self._store, user.scope, user.family, self._name, state)
        self._saved = self._state

    @property
    def bytes_per_user(self) -> int:
        """Of state in memory; it never grows."""
        return self._state.bytes_per_user

    def _count_erasures(self) -> int:
        self._store.refresh()
        return sum(kind == FrameType.ERASE for kind, _ in self._store.notes)

    def _obey_erasures(self) -> None:
        """What was erased from the file must not live on in a state that was read from it."""
        erasures = self._count_erasures()
        if erasures == self._erasures:
            return
        self._erasures = erasures
        self.reset()
        self._consolidate()
        warnings.warn("items were erased from the file: the attached model forgets what it had read", stacklevel=3)

    def _follow_bands(self) -> None:
        """Let in what was consolidated meanwhile, in whatever process, and out what was taken back."""
        with self._store.lock:
            rewritten = len(self._store.learning) < self._bands_seen
            news = [kind for kind, _ in self._store.learned(self._bands_seen)]
            self._bands_seen = len(self._store.learning)
        if rewritten or FrameType.BAND in news:
            self._consolidate()
            _compile_anew(self.model)


def _real(ids: Tensor, mask: Any, row: int) -> Tokens:
    """The tokens of a row that are no padding."""
    tokens = ids[row].tolist()
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return list(tokens)
    return [token for token, real in zip(tokens, mask[row, -len(tokens) :].tolist(), strict=True) if real]


def _compile_anew(model: Any) -> None:
    """A compiled model does not notice that hooks came or went: let it look again."""
    if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
        torch.compiler.reset()
