"""A jury: the majority of several judges, what each of them said, and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from tagging.policy.text import tag_key

from .verifier import TagVerdict, Word


@dataclass(frozen=True, slots=True)
class JuryTag:
    """The majority on one tag. `trace`: juror → its word; jurors without a verdict on the tag are left out."""

    verdict: TagVerdict
    trace: Mapping[str, str]


def on_tags(jurors: Mapping[str, Sequence[TagVerdict]], tie: Word = "unverifiable") -> list[JuryTag]:
    """The majority word on each tag; p_ok is the mean of the majority's on a majority, of all on a tie (then the word
    is `tie` and p_ok at most a half). Only candidates. One juror alone is no majority of a jury: its tag is a tie."""
    by_tag: dict[str, dict[str, TagVerdict]] = {}
    for juror, verdicts in jurors.items():
        for verdict in verdicts:
            if verdict.role == "candidate":
                by_tag.setdefault(tag_key(verdict.name), {})[juror] = verdict
    found = []
    for key in sorted(by_tag):
        said = by_tag[key]
        one = next(iter(said.values()))
        word, n = majority([v.word for v in said.values()])
        if word is None or len(said) < 2:
            p = min(0.5, _mean([v.p_ok for v in said.values()]))
            word, evidence = tie, "the jurors do not agree" if len(said) > 1 else "only one juror has a verdict"
        else:
            mine = [v for v in said.values() if v.word == word]
            p, evidence = _mean([v.p_ok for v in mine]), f"{n} of {len(said)}: {mine[0].evidence}"[:300]
        made = TagVerdict(one.name, one.category, "candidate", word, round(p, 4), evidence)  # type: ignore[arg-type]
        found.append(JuryTag(made, {juror: v.word for juror, v in said.items()}))
    return found


def majority(words: Sequence[Hashable]) -> tuple[Hashable | None, int]:
    """The word that more than half said, and how many; None without one."""
    if not words:
        return None, 0
    word, n = Counter(words).most_common(1)[0]
    return (word, n) if n * 2 > len(words) else (None, n)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def krippendorff_alpha(units: Sequence[Sequence[Hashable | None]]) -> float | None:
    """Krippendorff's alpha for nominal data: 1 − observed / expected disagreement. `units`: per unit the values its
    observers gave (None: none). Units with fewer than two values do not count.

    None where it is not defined: nothing to pair, or a single value throughout.
    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C.
    """
    totals: Counter[Hashable] = Counter()
    observed = 0.0
    for unit in units:
        values = Counter(v for v in unit if v is not None)
        m = sum(values.values())
        if m < 2:
            continue
        totals.update(values)
        observed += sum(n * (m - n) for n in values.values()) / (m - 1)
    n = sum(totals.values())
    expected = sum(count * (n - count) for count in totals.values())
    if not n or not expected:
        return None
    return 1 - (n - 1) * observed / expected
