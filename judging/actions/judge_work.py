"""Judging some subjects: what is known is found, what is not is asked, once again where the reply cannot be used.

`Judge.judge(subjects)` gives a `Draft` for each subject that has its answer; nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from prompts.models import WordlistVersion
from prompts.rendering import PromptError, render
from prompts.values import RenderContext
from tagging.adapters.base import AdapterError, ModelUnavailable
from tagging.engine.asking import Item, ask
from tagging.engine.calls import Call
from tagging.models import Prediction
from tagging.policy.text import tag_key

from ..judges import caption, pairwise, rules, verifier
from ..judges.content import as_json
from ..judges.replies import InvalidReply
from ..judges.spec import CaptionSpec, PairwiseSpec, RulesSpec, Spec, VerifierSpec, check_spec
from ..judges.verifier import Named, TagVerdict
from ..models import JudgeProfile, JudgeProfileVersion, JudgeVerdict, verdict_key
from .judge_subjects import Subject

Kind = JudgeProfile.Kind
ATTEMPTS = 2
#: samples of a judge are this far apart, so that a second attempt is no other sample's first
_APART = ATTEMPTS


@dataclass(slots=True)
class Draft:
    """A verdict to be. `known`: the stored one that was found. `error`: why there is none (the model failed).
    `nothing`: why there was nothing to judge. `replies`: what the model said, repeated questions included."""

    subject: Subject
    key: str = ""
    known: JudgeVerdict | None = None
    error: str = ""
    nothing: str = ""
    content: dict[str, Any] = field(default_factory=dict)
    state: str = JudgeVerdict.State.OK
    problem: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    overall: float | None = None
    weight: float = 1.0
    flags: list[str] = field(default_factory=list)
    outcome: str = ""
    flip: bool = False
    seats: tuple[str, ...] = ()
    tags: list[TagVerdict] = field(default_factory=list)
    replies: list[Prediction] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A draft that waits for replies: its calls, the replies read so far, and how often each was asked."""

    draft: Draft
    plan: Any
    calls: Sequence[Any]
    read: dict[int, Any] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.read) == len(self.calls)


class Judge:
    """One version of a judge in a worker. The votes of a jury are counted elsewhere (`judge_juries`)."""

    def __init__(self, version: JudgeProfileVersion, sample: int = 0) -> None:
        self.version, self.sample = version, sample
        self.kind = version.profile.kind
        self.spec: Spec = check_spec(self.kind, version.rules)
        self._call: Call | None = None

    @property
    def call(self) -> Call:
        """The model that is asked. ModelUnavailable where none is chosen, or it cannot be used here."""
        if self._call is None:
            version = self.version
            if version.adapter is None or version.prompt_version is None:
                raise ModelUnavailable(f"{version} cannot judge yet. {version.ready}")
            row = version.adapter
            self._call = Call(row.slug, row.label, version.adapter_config, row.settled(version.options))
        return self._call

    # -- what is asked ----------------------------------------------------------------------------------------------
    def content(self, subject: Subject) -> dict[str, Any]:
        """What is judged, normalised: the same content has the same verdict, whoever proposed it, in whatever order."""
        if self.kind == Kind.CAPTION:
            return {"caption": subject.caption, "reference": subject.reference}
        if self.kind == Kind.PAIRWISE:
            mine, theirs = (sorted({tag_key(n) for n in names}) for names in (subject.names, subject.other or ()))
            return {"a": min(mine, theirs), "b": max(mine, theirs)}
        tags: dict[str, Any] = {"tags": sorted({tag_key(name) for name in subject.names})}
        if isinstance(self.spec, RulesSpec):
            p = subject.proposed
            scored = sorted([tag_key(n), None if s is None else round(s, 3)] for n, _, s in p.tags)
            about = {"state": p.state, "flags": sorted(p.flags), "banned": sorted(p.banned), "caption": p.caption}
            return {"tags": scored, **about}
        if isinstance(self.spec, VerifierSpec) and self.spec.rules:
            found = rules.check(subject.proposed, self.spec.rules, _vocabulary(self.spec.rules))
            if found.findings:  # else the verdict is that of the tags alone, shared by all who proposed them
                tags["findings"] = [[f.code, sorted(f.tags)] for f in found.findings]
        return tags

    def key(self, subject: Subject) -> str:
        return verdict_key(self.version.digest, subject.image.sha256, self.content(subject), self.sample)

    # -- the work ---------------------------------------------------------------------------------------------------
    def judge(
        self,
        subjects: Sequence[Subject],
        *,
        stop: Callable[[], bool] = lambda: False,
        doing: Callable[[str], None] | None = None,
    ) -> list[Draft]:
        """A draft for each subject that was answered before `stop()`, in their order. ModelUnavailable."""
        drafts = [self._draft(subject) for subject in subjects]
        known = JudgeVerdict.objects.filter(key__in={d.key for d in drafts if d.key})
        found = {verdict.key: verdict for verdict in known}
        waiting: list[_Open] = []
        twins: dict[str, Draft] = {}
        for draft in drafts:
            draft.known = found.get(draft.key)
            if draft.known is None and not draft.nothing and draft.key not in twins:
                twins[draft.key] = draft
                if opened := self._open(draft):
                    waiting.append(opened)
        for _ in range(ATTEMPTS):
            if not any(not w.complete and not w.draft.error for w in waiting):
                break
            self._ask(waiting, stop, doing)
        unfinished = {id(w.draft) for w in waiting if not self._close(w)}
        for draft in drafts:
            if draft.key in twins:
                draft.error = twins[draft.key].error
        return [d for d in drafts if not unfinished & {id(d), id(twins.get(d.key))}]

    def _draft(self, subject: Subject) -> Draft:
        nothing = self._nothing(subject)
        if nothing:
            return Draft(subject, nothing=nothing)
        return Draft(subject, key=self.key(subject), content=self.content(subject))

    def _nothing(self, subject: Subject) -> str:
        if not subject.image.sha256:
            return "the file was never read"
        if self.kind == Kind.RULES:
            return ""
        if subject.proposed.state == "error":
            return "the model failed on this image"
        if self.kind == Kind.CAPTION:
            return "" if caption.sentences(subject.caption) else "there is no caption"
        if self.kind == Kind.PAIRWISE:
            return "" if subject.other is not None else "the other run has no proposal for it"
        return "" if subject.names else "there are no tags"

    def _open(self, draft: Draft) -> _Open | None:
        """Ready to be asked; None where the answer is known without asking."""
        subject, spec = draft.subject, self.spec
        seed = [self.version.digest, subject.image.sha256, self.sample]
        if isinstance(spec, RulesSpec):
            _by_rules(draft, spec)
            return None
        if isinstance(spec, VerifierSpec):
            if spec.rules and _stopped_by_rules(draft, spec.rules):
                return None
            tags = [Named(name, category) for name, category, _ in subject.proposed.tags]
            plan = verifier.plan(tags, spec, seed=seed, absent=subject.absent, present=subject.present)
            return _Open(draft, plan, plan.calls)
        if isinstance(spec, CaptionSpec):
            call = caption.plan(subject.caption, spec, seed=seed, reference=subject.reference)
            return _Open(draft, call, [call] if call and call.sent else [])
        pair = pairwise.pair(*_ordered(subject))
        return _Open(draft, pair, [] if pair.same else pair.calls())

    def _ask(self, waiting: Sequence[_Open], stop: Callable[[], bool], doing: Callable[[str], None] | None) -> None:
        for item, outcome in ask(self.call, self._items(waiting), stop=stop, doing=doing):
            opened, at = item.ref
            opened.attempts[at] = opened.attempts.get(at, 0) + 1
            if isinstance(outcome, AdapterError):
                opened.draft.error = outcome.message
                continue
            opened.draft.replies.append(outcome)
            try:
                opened.read[at] = self._read(outcome, opened.calls[at])
            except InvalidReply as error:
                opened.problems[at] = str(error)

    def _items(self, waiting: Iterable[_Open]) -> Iterator[Item]:
        """The questions that have no usable reply; a second time with the reason why the first was none."""
        for opened in waiting:
            for at, call in enumerate(opened.calls):
                tried = opened.attempts.get(at, 0)
                if at in opened.read or opened.draft.error or tried >= ATTEMPTS:
                    continue
                try:
                    system, prompt = self._text(call, opened.problems.get(at, ""))
                except PromptError as error:
                    opened.draft.error = f"The judge's prompt cannot be written: {error}"
                    break
                sample = self.sample * _APART + tried
                image = opened.draft.subject.image
                schema = call.schema(self.spec.missing) if isinstance(self.spec, VerifierSpec) else call.schema()
                yield Item((opened, at), image, prompt, system, schema, sample)

    def _text(self, call: Any, problem: str) -> tuple[str, str]:
        prompt = self.version.prompt_version
        assert prompt is not None
        count = len(call.items) if isinstance(call, verifier.Call) else 0
        reference = call.reference_payload() if isinstance(call, caption.Call) else ""
        values: dict[str, str | int | float | bool] = {
            "items": call.payload(),
            "rubric": self.version.rubric,
            "examples": examples_text(self.version.examples),
            "reference": reference,
            "count": count or "given",
        }
        text = render(prompt.system, prompt.template, RenderContext(variables=values, wordlist=_words))
        if not problem:
            return text.system, text.prompt
        again = f"Your last reply could not be used: {problem}. Answer with the JSON object alone, every id once."
        return text.system, f"{text.prompt}\n\n{again}"

    def _read(self, reply: Prediction, call: Any) -> Any:
        """The reply as data. InvalidReply; a reply that was cut off is none."""
        if reply.finish_reason == "length" or "truncated" in reply.flags:
            raise InvalidReply("the reply was cut off")
        if reply.finish_reason == "content_filter":
            raise InvalidReply("the reply was withheld by a content filter")
        text = reply.text or reply.caption
        if isinstance(call, verifier.Call):
            assert isinstance(self.spec, VerifierSpec)
            return verifier.read_call(text, call, self.spec)
        if isinstance(call, caption.Call):
            assert isinstance(self.spec, CaptionSpec)
            return caption.read_call(text, call, self.spec)
        return pairwise.read_call(text)

    # -- what came of it --------------------------------------------------------------------------------------------
    def _close(self, opened: _Open) -> bool:
        """Fill the draft; False when it still waits for answers (the work was stopped)."""
        draft = opened.draft
        if draft.error:
            return True
        if not opened.complete:
            if any(opened.attempts.get(at, 0) < ATTEMPTS for at in range(len(opened.calls)) if at not in opened.read):
                return False
            draft.state = JudgeVerdict.State.INVALID
            draft.problem = next(iter(opened.problems.values()))[:300]
            return True
        if opened.calls and not self.call.sees:
            draft.flags.append("blind")
        read = [opened.read[at] for at in range(len(opened.calls))]
        if isinstance(self.spec, VerifierSpec):
            _of_tags(draft, verifier.combine(opened.plan, read, self.spec, draft.subject.names), self.spec)
        elif isinstance(self.spec, CaptionSpec):
            _of_caption(draft, read[0] if read else caption.unsent(opened.plan, self.spec))
        else:
            assert isinstance(self.spec, PairwiseSpec)
            _of_pair(draft, opened.plan, pairwise.decide(*read) if read else pairwise.SAME)
        return True


def _ordered(subject: Subject) -> tuple[Sequence[str], Sequence[str]]:
    """Both sets in the order of their content: the verdict on a pair is the same from either side."""
    mine, theirs = subject.names, list(subject.other or ())
    swapped = sorted({tag_key(n) for n in mine}) > sorted({tag_key(n) for n in theirs})
    return (theirs, mine) if swapped else (mine, theirs)


def swapped(subject: Subject) -> bool:
    """Does side a of the stored verdict mean the subject's other run?"""
    return sorted({tag_key(n) for n in subject.names}) > sorted({tag_key(n) for n in subject.other or ()})


def examples_text(examples: Sequence[dict[str, Any]]) -> str:
    """People's decisions as JSON lines: the tag, what the judge saw, what a person decided."""
    kept = [{k: e[k] for k in ("tag", "mistaken_evidence", "note", "verdict") if e.get(k)} for e in examples]
    return as_json(kept) if kept else ""


@lru_cache(maxsize=32)
def _list_keys(slug: str, version: int) -> frozenset[str]:
    entries = WordlistVersion.objects.values_list("entries", flat=True).get(wordlist__slug=slug, number=version)
    return frozenset(tag_key(name) for e in entries for name in [e["text"], *(e.get("aliases") or ())])


def _words(slug: str) -> Sequence[str]:
    last = WordlistVersion.objects.filter(wordlist__slug=slug).order_by("-number").first()
    if last is None:
        raise LookupError(f"there is no wordlist {slug!r}, or nothing in it yet")
    return [entry["text"] for entry in last.entries]


def _vocabulary(spec: RulesSpec) -> frozenset[str] | None:
    if not spec.vocabulary:
        return None
    last = WordlistVersion.objects.filter(wordlist__slug=spec.vocabulary).order_by("-number").values_list("number")
    number = last.values_list("number", flat=True).first()
    if number is None:
        raise ModelUnavailable(f"The rules name the vocabulary {spec.vocabulary!r}, which does not exist.")
    return _list_keys(spec.vocabulary, number)


def _by_rules(draft: Draft, spec: RulesSpec) -> rules.RulesResult:
    found = rules.check(draft.subject.proposed, spec, _vocabulary(spec))
    draft.result = {
        "findings": [{"code": f.code, "text": f.text, "tags": list(f.tags)} for f in found.findings],
    }
    draft.flags += [f.code for f in found.findings]
    draft.outcome = "fail" if found.failed else "pass"
    draft.overall = 0.0 if found.failed else 1.0
    return found


def _stopped_by_rules(draft: Draft, spec: RulesSpec) -> bool:
    """Check first what costs nothing; the tags of what fails need a person."""
    found = _by_rules(draft, spec)
    if not found.failed:
        draft.outcome, draft.overall = "", None
        return False
    text = f"Not asked: {found.findings[0].text}."[:300]
    draft.tags = [
        TagVerdict(name, category, "candidate", "unverifiable", 0.0, text)
        for name, category, _ in draft.subject.proposed.tags
    ]
    draft.result["stopped_by_rules"] = True
    return True


def _of_tags(draft: Draft, found: verifier.ImageVerdict, spec: VerifierSpec) -> None:
    doubted = {tag_key(n) for f in draft.result.get("findings", ()) for n in f["tags"]}
    draft.tags = [*found.tags, *found.decoys]
    if doubted:  # the rules doubt it: whatever the judge says, a person looks
        draft.tags = [
            TagVerdict(t.name, t.category, t.role, t.word, min(t.p_ok, 0.5), t.evidence, t.sure)
            if t.role == "candidate" and tag_key(t.name) in doubted
            else t
            for t in draft.tags
        ]
    draft.overall, draft.weight = found.overall, found.weight
    draft.flags += found.flags
    draft.result = {**draft.result, "missing": list(found.missing), "grades": found.grades}


def _of_caption(draft: Draft, found: caption.CaptionVerdict) -> None:
    draft.overall = found.overall
    draft.flags += found.flags
    draft.result = {
        "claims": list(found.claims),
        "omissions": list(found.omissions),
        "reference": found.reference,
        "edit_similarity": found.edit_similarity,
    }


def _of_pair(draft: Draft, pair: pairwise.Pair, found: pairwise.PairVerdict) -> None:
    draft.outcome, draft.flip, draft.seats = found.outcome, found.flip, tuple(found.seats)
    draft.result = {
        "only_a": list(pair.a),
        "only_b": list(pair.b),
        "shared": len(pair.shared),
        "answers": [
            {"order": order, "winner": seat, "evidence": evidence}
            for order, seat, evidence in zip(("ab", "ba"), found.seats, found.evidence, strict=False)
        ],
    }
    if pair.refused:
        draft.flags.append("not_sent")
