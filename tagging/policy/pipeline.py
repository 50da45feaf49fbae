"""The policy pipeline: one ordered list of pure steps, run exactly once per image, after combining channels.

What concerns one word alone (normalise → replace → map to the vocabulary → length → banned) depends on nothing else and
is remembered per word (`words.WordRules`), so that an ordinary image costs a dictionary look-up per tag. What concerns
the tags of an image together follows here: thresholds → duplicates → forced and triggers → broader terms → exclusive
groups → limits → order → caption.

Claims, held by property tests: applying a policy to its own result changes nothing; candidates with scores may come in
any order (unless `order` is "given"); limits are never exceeded; forced and trigger words always stand; nothing banned
comes out. Rules that would break a claim are refused by `compile_policy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from prompts.wordlists import first_error

from ..adapters.base import LabelSet, PackedScores, Thresholds
from . import select
from .caption import apply_caption
from .parse import Parsed, parse
from .spec import Candidate, Fate, Outcome, PolicyError, PolicySpec, WordList
from .text import tag_key
from .words import WordRules

# scores are stored in steps of 1.5e-5: half a step below a threshold is still on it
_EPSILON = 1e-5


class _Item:
    """One tag on its way through the steps."""

    __slots__ = (
        "ancestors",
        "category",
        "key",
        "name",
        "original",
        "position",
        "protected",
        "reason",
        "score",
        "source",
        "state",
    )

    def __init__(
        self,
        name: str,
        key: str,
        category: str,
        score: float | None,
        state: Any = "kept",
        reason: str = "",
        source: str = "",
        original: str = "",
        position: int = 0,
        protected: bool = False,
        ancestors: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.key = key
        self.category = category
        self.score = score
        self.state = state
        self.reason = reason
        self.source = source
        self.original = original
        self.position = position
        self.protected = protected
        self.ancestors = ancestors

    def fate(self) -> Fate:
        return Fate(self.name, self.category, self.score, self.state, self.reason, self.source, self.original)

    def dropped(self, reason: str) -> Fate:
        return Fate(self.name, self.category, self.score, "dropped", reason, self.source, self.original)


def _rank(item: _Item) -> tuple[Any, ...]:
    """Best first: by score; the unscored after them as they came; ties by the word."""
    if item.score is None:
        return (1, 0.0, item.position, item.key, item.name, item.category, item.original)
    return (0, -item.score, 0, item.key, item.name, item.category, item.original)


class CompiledPolicy:
    """A policy ready for use. Made by `compile_policy`; pure: the same input gives the same outcome.

    `problems` names what was met while it was used (patterns that took too long), each once.
    """

    def __init__(self, spec: PolicySpec, lists: Sequence[WordList]) -> None:
        self.spec = spec
        self.problems: list[str] = []
        self.words = WordRules(spec, lists, self.problems)
        self._tag_thresholds = self._by_final_word(spec.tag_thresholds)
        self._groups = [tuple(dict.fromkeys(tag_key(word) for word in group)) for group in spec.exclusive]
        self._hidden = frozenset(spec.hidden_categories)
        self._category_rank = {category: i for i, category in enumerate(spec.category_order)}
        self._label_thresholds: dict[str, dict[str, float]] = {}
        self._check()

    def _by_final_word(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """Thresholds by the word they name and by what the rules make of it: a policy's own result must pass it again.
        Where several words become one that has no threshold of its own, the lowest counts."""
        named = {tag_key(name): value for name, value in thresholds.items()}
        found = dict(named)
        for name, value in thresholds.items():
            word = self.words.of(name, "general")
            if not word.dropped and word.key not in named:
                found[word.key] = min(value, found.get(word.key, 1.0))
        return found

    def _check(self) -> None:
        """PolicyError where the rules cannot all hold."""
        words = self.words
        for name in (*words.forced.values(), *words.triggers.values()):
            if found := words.banned.find(name):
                raise PolicyError(
                    f"{name!r} is to stand on every image but is banned by {found[0].text!r} of {found[1]!r}: "
                    "take it out of one of the two"
                )
        fixed = len({*words.forced, *words.triggers})
        if self.spec.max_tags is not None and fixed > self.spec.max_tags:
            raise PolicyError(
                f"max_tags: {fixed} forced and trigger words do not fit into a limit of {self.spec.max_tags} tags"
            )
        if self.spec.max_tags is not None and self.spec.min_tags > self.spec.max_tags:
            raise PolicyError(f"min_tags: {self.spec.min_tags} is more than the limit of {self.spec.max_tags} tags")

    # -- from stored scores ------------------------------------------------------------------------------------------
    def thresholds_for(self, thresholds: Mapping[str, float]) -> Thresholds:
        """The adapter's thresholds by category (and by label), overridden by this policy's own."""
        return Thresholds.from_mapping(thresholds, self.spec.thresholds)

    def tag_thresholds_for(self, labels: LabelSet) -> dict[str, float]:
        """This policy's thresholds by tag, for the labels whose own or final word they name."""
        if not self._tag_thresholds:
            return {}
        found = self._label_thresholds.get(labels.digest)
        if found is None:
            found = {}
            for name, category in zip(labels.names, labels.categories, strict=True):
                value = self._tag_threshold(name, self.words.of(name, category).key)
                if value is not None:
                    found[name] = value
            self._label_thresholds[labels.digest] = found
        return found

    def select(
        self, labels: LabelSet, packed: PackedScores, thresholds: Mapping[str, float], *, source: str = ""
    ) -> list[Candidate]:
        """What of one image's stored scores is above the adapter's thresholds or this policy's own."""
        return select.candidates(
            labels,
            packed,
            self.thresholds_for(thresholds),
            self.tag_thresholds_for(labels),
            hidden=self._hidden,
            min_tags=self.spec.min_tags,
            source=source,
        )

    def parse(self, text: str) -> Parsed:
        """Tags and caption of a text reply by this policy's parse rule. Never raises."""
        return parse(text, self.spec.parse)

    def _tag_threshold(self, name: str, key: str) -> float | None:
        own = self._tag_thresholds.get(key)
        return own if own is not None else self._tag_thresholds.get(tag_key(name))

    # -- the steps ---------------------------------------------------------------------------------------------------
    def apply(
        self, candidates: Sequence[Candidate], *, caption: str = "", thresholds: Mapping[str, float] | None = None
    ) -> Outcome:
        """Run all steps on one image's tags and caption.

        `thresholds`: category → lowest probability, as the adapter says; this policy's own go before them. Tags without
        a score pass every threshold.
        """
        dropped: list[Fate] = []
        live, reserve = self._gather(candidates, self.thresholds_for(thresholds or {}), dropped)
        self._force(live)
        if self.spec.parents == "drop":
            self._drop_broader(live, dropped)
        if self._groups:
            self._keep_one_of_each_group(live, dropped)
        items = sorted(live.values(), key=_rank)
        if self.spec.max_tags is not None and len(items) > self.spec.max_tags:
            items = self._cut(items, self.spec.max_tags, dropped)
        if reserve:
            self._fill_up(items, live, reserve, dropped)
        kept = [item.fate() for item in self._ordered(items)]
        text = apply_caption(caption, self.spec.caption, self.words.banned_in_text, [f.name for f in kept])
        return Outcome(kept + sorted(dropped, key=_by_score), text)

    def _gather(
        self, candidates: Sequence[Candidate], thresholds: Thresholds, dropped: list[Fate]
    ) -> tuple[dict[str, _Item], list[_Item]]:
        """Words by their own rules, thresholds, duplicates. Returns the live tags by key and those below threshold."""
        live: dict[str, _Item] = {}
        reserve: list[_Item] = []
        of, tag_thresholds, fill = self.words.of, self._tag_thresholds, self.spec.min_tags > 0
        by_label = thresholds.cuts is not None
        for position, (name, category, score, source, parent, ancestors) in enumerate(candidates):
            word = of(name, category)
            if category in self._hidden:
                dropped.append(Fate(word.name, category, score, "dropped", f"{category} is no tag", source, name))
                continue
            if word.dropped:
                dropped.append(Fate(word.name, word.category, score, "dropped", word.reason, source, name))
                continue
            item = _Item(word.name, word.key, word.category, score, word.state, word.reason, source, name, position)
            item.protected = word.protected
            if ancestors or parent:
                item.ancestors = ancestors or (parent,)  # type: ignore[assignment]
            if score is not None and not word.protected:
                lowest = thresholds.lowest(name, category) if by_label else thresholds.get(category, 0.0)
                if tag_thresholds:
                    own = self._tag_threshold(name, word.key)
                    lowest = lowest if own is None else own
                if score + _EPSILON < lowest:
                    if fill:
                        reserve.append(item)
                    else:
                        dropped.append(item.dropped(f"below {lowest:.2f}"))
                    continue
            other = live.get(word.key)
            if other is None:
                live[word.key] = item
            elif _rank(item) < _rank(other):
                live[word.key] = item
                dropped.append(other.dropped(f"same as {item.name!r}"))
            else:
                dropped.append(item.dropped(f"same as {other.name!r}"))
        return live, reserve

    def _force(self, live: dict[str, _Item]) -> None:
        """Forced and trigger words stand on every image; those the model said itself keep their score."""
        for what, words in (("forced", self.words.forced), ("trigger word", self.words.triggers)):
            for key, name in words.items():
                if key not in live:
                    live[key] = _Item(name, key, "general", None, "added", what, "policy", position=-1, protected=True)

    def _ancestors(self, item: _Item) -> set[str]:
        """Keys of everything broader than a tag, by its label set and by the vocabulary."""
        found = {self.words.of(name, item.category).key for name in item.ancestors}
        for key in (item.key, *found):
            found.update(self.words.vocabulary.ancestors(key))
        found.discard(item.key)
        return found

    def _drop_broader(self, live: dict[str, _Item], dropped: list[Fate]) -> None:
        narrower: dict[str, str] = {}
        for item in sorted(live.values(), key=_rank):
            for key in self._ancestors(item):
                narrower.setdefault(key, item.name)
        for key, name in narrower.items():
            broader = live.get(key)
            if broader is not None and not broader.protected:
                del live[key]
                dropped.append(broader.dropped(f"broader than {name!r}"))

    def _keep_one_of_each_group(self, live: dict[str, _Item], dropped: list[Fate]) -> None:
        for group in self._groups:
            found = sorted((live[key] for key in group if key in live), key=lambda i: (not i.protected, _rank(i)))
            for item in found[1:]:
                if not item.protected:
                    del live[item.key]
                    dropped.append(item.dropped(f"excluded by {found[0].name!r}"))

    def _cut(self, items: list[_Item], limit: int, dropped: list[Fate]) -> list[_Item]:
        """The best `limit`, forced and trigger words always among them. `items` come best first."""
        room = limit - sum(item.protected for item in items)
        stay = []
        for item in items:
            if item.protected:
                stay.append(item)
            elif room > 0:
                stay.append(item)
                room -= 1
            else:
                dropped.append(item.dropped(f"over the limit of {limit}"))
        return stay

    def _fill_up(self, items: list[_Item], live: dict[str, _Item], reserve: list[_Item], dropped: list[Fate]) -> None:
        """Bring back the best below their threshold until `min_tags` stand; nothing that the other steps would drop."""
        have = {item.key for item in items}
        for item in sorted(reserve, key=_rank):
            short = len(items) < self.spec.min_tags
            if short and item.key not in live and item.key not in have and not self._clashes(item, items):
                item.reason = "; ".join(filter(None, (item.reason, "below threshold, to reach the fewest tags")))
                items.append(item)
                have.add(item.key)
            else:
                dropped.append(item.dropped("below threshold"))

    def _clashes(self, item: _Item, items: Sequence[_Item]) -> bool:
        keys = {other.key for other in items}
        if any(item.key in group and keys.intersection(group) for group in self._groups):
            return True
        if self.spec.parents != "drop":
            return False
        broader = self._ancestors(item)
        return bool(keys & broader) or any(item.key in self._ancestors(other) for other in items)

    def _ordered(self, items: list[_Item]) -> list[_Item]:
        order, last = self.spec.order, len(self._category_rank)
        terms = self.words.vocabulary.terms

        def within(item: _Item) -> tuple[Any, ...]:
            if order == "alphabet":
                return (item.key, item.name)
            if order == "given":
                return (item.position, item.key)
            if order == "category":
                return (item.category, *_rank(item))
            if order == "vocabulary":
                term = terms.get(item.key)
                return (term.position if term else len(terms), *_rank(item))
            return _rank(item)

        triggers = self.words.triggers
        place = -1 if self.spec.trigger_position == "first" else 1
        spots = {key: i for i, key in enumerate(triggers)}
        return sorted(
            items,
            key=lambda item: (
                (place, spots[item.key])
                if item.key in spots
                else (0, self._category_rank.get(item.category, last), *within(item))
            ),
        )


def _by_score(fate: Fate) -> tuple[float, str, str]:
    return (-fate.score if fate.score is not None else 1.0, fate.name, fate.original)


def compile_policy(spec: PolicySpec | Mapping[str, Any], lists: Sequence[WordList] = ()) -> CompiledPolicy:
    """Check and compile a policy with its lists; do it once and keep the result (it remembers words).

    PolicyError names the field, word or list that is wrong.
    """
    if not isinstance(spec, PolicySpec):
        try:
            spec = PolicySpec.model_validate(spec)
        except ValidationError as error:
            raise PolicyError(first_error(error)) from None
    return CompiledPolicy(spec, lists)
