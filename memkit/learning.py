"""What a memory learns, as verbs: feedback, the fast state that it makes, and bands consolidated from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from memkit.arguments import queries_of
from memkit.fast.family import FamilyState
from memkit.items import Recall
from memkit.scoping import Progress, View
from memkit_storage.errors import InvalidInput
from memkit_storage.filters import Filter
from memkit_storage.log import now_us

if TYPE_CHECKING:
    from memkit.slow.bands import Band
    from memkit.slow.clock import Level
    from memkit.slow.rounds import SleepReport


class Learning(View):
    """The learned tiers of a memory."""

    def feedback(
        self,
        recall_or_query: Recall | str,
        *,
        used: str | Sequence[str] = (),
        wrong: str | Sequence[str] = (),
        weight: float = 1.0,
        source: str | None = None,
        trusted: bool = True,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Say which items helped with a query and which misled: logged, and learned from at once by the fast tier.

        What is learned acts in searches of the same user and agent alone, and as far as it has proved itself.

        Args:
            recall_or_query: what `recall` gave, or the query of a search.
            used, wrong: ids of items.
            weight: in (0, 1], how sure this is.
            source: who says so, if not the caller: each named source can put in so much and no more.
            trusted: False logs it without learning from it.

        Raises:
            ItemNotFound: an id is none of this view. InvalidInput: no id, an id that is both used and wrong, or a
            weight out of range. Nothing is written or learned then.
        """
        self._writable()
        recall = recall_or_query if isinstance(recall_or_query, Recall) else None
        scope = self._bound(user_id, agent_id, run_id) | (recall.scope if recall else {})
        self._finder.feedback(
            recall,
            recall.query if recall else queries_of(recall_or_query, "hybrid")[0],
            self._filter(None) & Filter.parse(scope),
            scope,
            used=[used] if isinstance(used, str) else list(used),
            wrong=[wrong] if isinstance(wrong, str) else list(wrong),
            weight=weight,
            source=source,
            trusted=trusted,
        )

    def reset_fast(self) -> None:
        """Forget what feedback taught this view's user and agent (the whole file, on a memory without scope).

        The feedback stays in the log; what is learned starts anew from here.
        """
        self._writable()
        self._fast.reset(self._scope, now_us())

    def snapshot(self) -> FamilyState | None:
        """What feedback has taught this view's user and agent so far, as a value; None before any feedback."""
        self._store.refresh()
        return self._fast.learned(self._scope, self._as_of)

    def branch(self, state: FamilyState | None) -> Self:
        """The same memory, ranking with a snapshot: feedback given to it teaches the branch alone and is not logged."""
        view = self._view()
        view._fast = self._fast.branch(state)
        return view

    def consolidate(
        self,
        model: Any | None = None,
        tokenizer: Any | None = None,
        *,
        device: str | None = None,
        writer: Callable[[str], Iterable[tuple[str, str]]] | None = None,
        style: bool = False,
        budget: float | None = None,
        megabytes: int | None = None,
        due: int = 1,
        stop: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
    ) -> SleepReport:
        """One sleep now: replay the log, make a band for each user and agent with new feedback, let in what passes.

        A band is the whole of learned recall solved together from all logged feedback (`memkit.slow.recall_band`). It
        acts at once if held-out feedback shows that it ranks no worse than what acts now, nothing known before is lost,
        and items are still found by their own words; otherwise it is kept as turned away, with the reasons. Other
        processes read and write meanwhile. `memkit consolidate FILE --watch` runs it beside an application.

        Args:
            model, tokenizer: of a local causal language model: then items of the log become slots beside its weights
                as well, which act whenever it is attached (docs/consolidate-lm.md). device: where to train them.
                writer: gives questions and answers of a text, besides those made by rules
                (`memkit.slow.lm.asking.writer(model, tokenizer)`: the model's own). style: also learn how each speaker
                of enough chat messages writes, which takes minutes a speaker on a CPU.
            budget: seconds. megabytes: of memory for feedback. due: new feedbacks, or items to learn, from which a
                user and agent get a band. stop: asked between steps whether to stop. What is left
                undone is done by the next sleep.
            progress: callable (done, total) of users and agents.

        Raises:
            Busy: another process or thread is consolidating this file.
            InvalidInput: a model without its tokenizer, style without a model, no dense decoder, or one that a memory
            is attached to.
        """
        self._writable()
        if (model is None) is not (tokenizer is None):
            raise InvalidInput("consolidate(model, tokenizer): pass both, or neither")
        if style and model is None:
            raise InvalidInput("consolidate(style=True) without a model; pass the model and its tokenizer")
        from memkit.slow.rounds import Budget
        from memkit.slow.sleep import Sleeper, sole_sleeper

        scope, limits = self._bound(user_id, agent_id, None), Budget(budget, megabytes, stop or (lambda: False))
        with sole_sleeper(self._index.root):
            report = Sleeper(self._store, self._index, self._fast).sleep(scope, limits, due=due, progress=progress)
            if model is None:
                return report
            from memkit.slow.lm.sleep import LanguageModel, LMSleeper

            lm = LanguageModel(model, tokenizer, device, writer)
            sleeper = LMSleeper(self._store, self._fast, lm, self._index.root)
            report = report.also(sleeper.sleep(scope, limits, due=due, progress=progress))
            if not style:
                return report
            from memkit.slow.lm.style_sleep import StyleSleeper

            writers = StyleSleeper(self._store, self._fast, lm, self._index.root)
            return report.also(writers.sleep(scope, limits, progress=progress))

    def bands(self) -> list[Band]:
        """Every band of this view's users and agents, oldest first: let in or not, in force or not, and why."""
        from memkit.slow.bands import bands
        from memkit.slow.clock import within

        return [band for band in bands(self._store) if within(self._scope, band.scope)]

    def rollback(self, band_id: str, *, undo: bool = False) -> list[str]:
        """Take a band back, with every band that was made starting from it: what acted before acts again, at once.

        Nothing is deleted. `undo=True` puts a band in force again.

        Returns:
            Ids of the bands that were switched.

        Raises:
            ItemNotFound: no such band in this view.
        """
        self._writable()
        from memkit.slow.bands import switch

        allowed = [band.id for band in self.bands()]
        return switch(self._store, band_id, on=undo, reason="undo" if undo else "rollback", allowed=allowed)

    def levels(self) -> list[Level]:
        """How each level of learning fares, by user and agent: updates, size of the last change, gain, dead or not."""
        from memkit.slow.clock import levels, within

        return [level for level in levels(self._store, self._fast) if within(self._scope, level.scope)]
